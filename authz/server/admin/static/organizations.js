// Organizations that call, reasons of refusals, and the chosen organization with its actions.

import { $, make, moment, number, plural, replace, short, svg } from "/dom.js";
import { ask } from "/act.js";
import { beside, calledOf, client as called, isolated, nameOrId, titleOf } from "/names.js";
import { usage } from "/usage.js";

let about = { can_act: false, meanings: {} };
let overview = { organizations: [], suspended: [], revoked: [] };
let policy = { policy: null };
let chosen = "";
let onChange = () => {};

export function begin(told, changed) {
  about = told;
  onChange = changed;
}

export function choose(id, fillFilter = true) {
  chosen = id;
  if (fillFilter) $("filter-organization").value = id;
  onChange();
  render();
}

export function show(newOverview) {
  overview = newOverview;
  render();
}

export function showPolicy(newPolicy) {
  policy = newPolicy;
  render();
}

const KEPT = "Orders outlive the server, until they are lifted.";
const FORGOTTEN = "Orders end when this server stops: it runs with neither --orders nor --store. To suspend for longer, write " +
  "status: suspended into the policy file, or withdraw the application in the WorkOS dashboard.";

const isSuspended = (id) => overview.suspended.includes(id);
const isSuspendedByPolicy = (id) => (policy.suspended ?? []).includes(id);

function known() {
  const seen = new Map(overview.organizations.map((each) => [each.id, each]));
  for (const id of [...overview.suspended, ...(policy.suspended ?? [])]) {
    if (!seen.has(id)) seen.set(id, { id, allowed: 0, denied: 0, undecided: 0, failed: 0, last: null, clients: {}, known: calledOf(id) });
  }
  return seen;
}

function render() {
  const organizations = known();
  $("organizations-empty").hidden = organizations.size > 0;
  $("organizations-meta").textContent = organizations.size > 0 ? number(organizations.size) : "";
  // By the order that changes least, so that a row stays under the pointer.
  const ordered = [...organizations.values()].sort((one, other) => calls(other) - calls(one) || (one.id < other.id ? -1 : 1));
  replace($("organization-rows"), ordered.map(row));
  renderReasons();
  renderChosen(organizations.get(chosen));
}

const refusals = (each) => each.denied + each.undecided + each.failed;
const calls = (each) => each.allowed + refusals(each);

function row(each) {
  const name = make("button", { className: "name", type: "button", title: each.id }, nameOrId(each.id));
  name.dataset.key = each.id;
  name.setAttribute("aria-pressed", String(each.id === chosen));
  name.addEventListener("click", () => choose(each.id === chosen ? "" : each.id));
  const first = make("td", {}, name);
  if (isSuspended(each.id) || isSuspendedByPolicy(each.id)) {
    first.append(make("span", { className: "tag deny" }, "suspended"));
  }
  first.append(...beside(each.id));
  return make("tr", { className: each.id === chosen ? "selected" : "" },
    first,
    make("td", { className: "number" }, short(each.allowed)),
    make("td", { className: "number" }, short(refusals(each))),
  );
}

function renderChosen(each) {
  const panel = $("organization");
  panel.hidden = !each;
  if (!each) {
    panel.replaceChildren();
    return;
  }
  const { name, ...known } = each.known ?? {};
  const title = name ?? titleOf(each.id);
  const facts = [...(title === each.id ? [] : [["id", make("code", {}, each.id)]]), ...Object.entries(known), ["allowed", number(each.allowed)], ["refused", number(refusals(each))]];
  facts.push(["last call", each.last === null ? "none since the start" : moment(each.last)]);
  const clients = Object.entries(each.clients).map(([id, count]) => client(id, count, each.applications?.[id]));
  replace(panel, [
    make("h3", { className: title === each.id ? "mono" : "" }, isolated(title)),
    make("dl", { className: "facts" }, ...facts.flatMap(([what, value]) => [
      make("dt", {}, what), make("dd", {}, typeof value === "string" ? isolated(value) : value),
    ])),
    ...(clients.length > 0 ? [make("ul", { className: "clients" }, ...clients)] : []),
    ...usage(each.id, render),
    make("div", { className: "row" }, ...standing(each.id)),
    make("p", { className: "hint" }, about.can_act
      ? (overview.is_kept ? KEPT : FORGOTTEN)
      : "Actions are off. Set AUTHZ_ADMIN_SECRET, or --admin-secret-file, and start the server again."),
  ]);
}

function standing(id) {
  if (isSuspended(id)) return [button("Resume", "resume", id)];
  if (isSuspendedByPolicy(id)) return [make("span", {}, "Suspended by the policy file, which alone can resume it.")];
  return [button("Suspend organization", "suspend", id)];
}

function client(id, count, application) {
  const isRevoked = overview.revoked.includes(id);
  const act = isRevoked ? button("Reinstate", "reinstate", id) : button("Revoke", "revoke", id);
  act.setAttribute("aria-label", `${act.textContent} client ${id}`);
  return make("li", {},
    make("span", { className: "who" },
      ...called(id, application),
      ...(application?.description ? [make("span", { className: "second" }, isolated(application.description))] : [])),
    ...(isRevoked ? [make("span", { className: "tag deny" }, "revoked")] : []),
    make("span", { className: "meta" }, plural(count, "call")),
    act,
  );
}

function button(words, verb, id) {
  const isHarsh = verb === "suspend" || verb === "revoke";
  const element = make("button", { type: "button", className: isHarsh ? "danger" : "", disabled: !about.can_act }, words);
  element.dataset.key = `act ${id}`;
  element.addEventListener("click", () => ask({ verb, id, kind: verb === "suspend" || verb === "resume" ? "organization" : "client" }));
  return element;
}

function renderReasons() {
  const reasons = [...(overview.reasons ?? [])].sort((one, other) => other.count - one.count);
  const most = reasons[0]?.count ?? 1;
  $("reasons-empty").hidden = reasons.length > 0;
  $("reasons").replaceChildren(...reasons.map((each) => {
    const bar = svg("svg", { class: "bar", viewBox: "0 0 100 3", preserveAspectRatio: "none", "aria-hidden": "true" });
    bar.append(
      svg("rect", { class: "track", width: 100, height: 3 }),
      svg("rect", { class: "fill", width: Math.max(1, (100 * each.count) / most), height: 3 }),
    );
    return make("li", {},
      make("div", { className: "head" }, make("code", {}, each.reason), make("b", {}, short(each.count))),
      make("p", { className: "words" }, about.meanings[each.reason] ?? ""),
      bar,
    );
  }));
}
