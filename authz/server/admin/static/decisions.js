// The table of decisions: the newest on top, filtered here; new rows are added without rebuilding the others.

import { $, firstSentence, make, moment, number, replace, verdict } from "/dom.js";
import { beside, client, isLike, learnDecisions, nameOrId } from "/names.js";
import { areSeveral, idOf, nameOf } from "/replicas.js";

const KEPT = 2000;
const SHOWN = 200;

const EVIDENCE = {
  none: "no good token",
  public: "no token needed",
  proxy: "a trusted proxy named the caller",
  cache: "token checked before",
  signature: "signature of the token checked",
  introspection: "issuer confirmed the token",
  envoy: "Envoy repeated an earlier answer",
};

const kept = new Map();
let meanings = {};
let missed = 0;
let leftOut = 0;
let select = () => {};

export function begin(about, onOrganization) {
  meanings = about.meanings;
  select = onOrganization;
  $("filters").addEventListener("input", () => { keepChosen(); render(); });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => setTimeout(() => { select(""); render(); }));
  // A complete id chooses that organization, too; an empty filter leaves the choice as it is.
  $("filter-organization").addEventListener("change", (event) => {
    if (event.target.value.trim()) select(event.target.value.trim(), false);
  });
}

// Those of others would soon take the place of those of one replica that is looked at.
function keepChosen() {
  const isOther = others();
  for (const [id, decision] of kept) if (isOther(decision)) kept.delete(id);
}

function others() {
  const chosen = $("filter-replica").value;
  return (decision) => chosen !== "" && idOf(decision) !== chosen;
}

export function add(answer, overview) {
  missed += answer.missed;
  const isNews = learnDecisions(answer.decisions);
  leftOut = overview?.store?.left_out ?? leftOut;
  const isOther = others();
  const fresh = answer.decisions.filter((decision) => !kept.has(decision.id) && !isOther(decision));
  if (fresh.length === 0) {
    if (overview) describe();
    return;
  }
  for (const decision of fresh) kept.set(decision.id, decision);
  for (const id of kept.keys()) {
    if (kept.size <= KEPT) break;
    kept.delete(id);
  }
  const rows = $("decision-rows");
  const isFirst = rows.childElementCount === 0;
  for (const decision of fresh.filter(filter()).slice(-SHOWN)) rows.prepend(row(decision, !isFirst));
  while (rows.childElementCount > SHOWN && !rows.lastElementChild.contains(document.activeElement)) {
    rows.lastElementChild.remove();
  }
  // Rows that are there already may name the same organizations.
  if (isNews && !isFirst) render();
  else describe();
}

// All calls of gRPC are POST.
const called = ({ method, verb }) => (verb === "POST" || verb === "" ? method : `${verb} ${method}`);

export const methods = () => [...new Set([...kept.values()].map((decision) => decision.method))].sort().slice(0, 100);

export function render() {
  const wanted = [...kept.values()].filter(filter()).slice(-SHOWN).reverse();
  replace($("decision-rows"), wanted.map((decision) => row(decision, false)));
  describe();
}

function describe() {
  const count = kept.size === 0 ? 0 : [...kept.values()].filter(filter()).length;
  const empty = $("decisions-empty");
  empty.hidden = count > 0;
  empty.textContent = kept.size === 0
    ? "No call yet. Decisions show up here as they are made."
    : "None of the decisions here is like that.";
  const told = `${number(Math.min(count, SHOWN))} of ${number(kept.size)} decisions that this page has seen`;
  const lost = missed > 0 ? `; ${number(missed)} went by too fast. The decision log has all` : "";
  const sampled = leftOut > 0 ? ` Other replicas have told a few of each second, and left out ${number(leftOut)}.` : "";
  $("decisions-note").textContent = kept.size === 0 ? "" : `${told}${lost}.${sampled}`;
}

function filter() {
  const wanted = $("filter-verdict").value;
  const method = $("filter-method").value.trim().toLowerCase();
  const organization = $("filter-organization").value.trim();
  return (decision) =>
    (wanted === "" || decision.verdict === wanted || (wanted === "refused" && decision.verdict !== "allowed")) &&
    called(decision).toLowerCase().includes(method) &&
    (organization === "" || isLike(decision.organization, organization));
}

const ORDERED = {
  operator: "An order of the operator keeps this caller out.",
  workos: "An order from WorkOS keeps this caller out.",
  other: "An order from another source keeps this caller out.",
};

function why({ reason, rule, order_source: source }) {
  // The decision says more about this reason than the general sentence.
  if (reason === "policy_denied") return rule ? `The policy's rule ${rule} denies it.` : "No rule of the policy allows it.";
  return ORDERED[source] ?? firstSentence(meanings[reason] ?? reason);
}

function row(decision, isNew) {
  const { organization, reason } = decision;
  const call = make("td", { className: `call ${decision.verdict}` }, make("span", { className: "method" }, called(decision) || "–"));
  if (reason) {
    call.append(make("span", { className: "second why", title: meanings[reason] ?? "" }, why(decision)));
  }
  const caller = make("td", { className: "caller" });
  if (organization) {
    const name = make("button", { className: "name", type: "button", title: organization }, nameOrId(organization));
    name.dataset.key = decision.id;
    name.addEventListener("click", () => select(organization));
    caller.append(name, ...beside(organization), make("span", { className: "second" }, ...client(decision.client, { name: decision.client_name })));
  } else {
    caller.append(make("span", { className: "second" }, decision.source === "public" ? "caller not checked" : "caller not known"));
  }
  const evidence = decision.event === "stream_ended" ? "an open stream was ended" : EVIDENCE[decision.source];
  const time = make("td", { className: "time" }, moment(decision.time));
  if (areSeveral()) time.append(make("span", { className: "second", title: idOf(decision) }, nameOf(idOf(decision))));
  return make("tr", { className: isNew ? "new" : "" },
    time,
    make("td", { className: "outcome" }, verdict(decision.verdict)),
    call,
    caller,
    make("td", { className: "ground" }, make("code", {}, decision.rule || reason || "–"), make("span", { className: "second" }, evidence)),
    make("td", { className: "number" }, decision.milliseconds.toFixed(2)),
  );
}
