// The orders in force, a form to give another, and the replicas that obey them.

import { ask } from "/act.js";
import { $, brief, clock, make, number, plural, replace, span } from "/dom.js";

const LIFTING = { suspend: "resume", revoke: "reinstate" };
const DAY = 86400;

let about = { can_act: false };

export function begin(told) {
  about = told;
  for (const element of $("order-form").elements) element.disabled = !about.can_act;
  $("order-what").addEventListener("change", describe);
  $("order-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const [verb, kind] = $("order-what").value.split(" ");
    const order = { verb, kind, id: $("order-id").value.trim() };
    if ($("order-earlier").checked && hasSeveral()) order.issued_before = Math.ceil(Date.now() / 1000);
    ask(order);
  });
  describe();
}

export function show(overview) {
  const { orders, order_count: count, token_count: tokens, now } = overview;
  $("orders-empty").hidden = count + tokens > 0;
  const parts = [count > 0 ? plural(count, "order") : "", tokens > 0 ? `${plural(tokens, "revoked token")}` : ""];
  $("orders-meta").textContent = parts.filter(Boolean).join(" · ");
  $("order-table").hidden = orders.length === 0;
  replace($("order-rows"), orders.map((order) => row(order, now)));
  $("orders-note").textContent = count > orders.length ? `The latest ${number(orders.length)} of them.` : "";
  showReplicas(overview);
}

const hasSeveral = () => ["revoke client", "revoke organization", "revoke key"].includes($("order-what").value);

function describe() {
  $("order-earlier").disabled = !about.can_act || !hasSeveral();
}

const when = (seconds, now) => (Math.abs(now - seconds) < DAY / 2
  ? clock(seconds)
  : `${new Date(seconds * 1000).toLocaleDateString("en-CA")} ${clock(seconds)}`);

function row(order, now) {
  const { verb, kind, id, issuer } = order;
  const name = make("code", { title: id }, brief(id));
  const what = make("td", {}, make("span", { className: "tag deny" }, `${verb} ${kind}`), " ", name);
  if (issuer) what.append(make("span", { className: "second" }, `of ${issuer}`));
  if (order.issued_before !== null) {
    what.append(make("span", { className: "second" }, `issued before ${when(order.issued_before, now)}`));
  }
  const lift = make("button", { type: "button", disabled: !about.can_act }, "Lift");
  lift.setAttribute("aria-label", `Lift: ${verb} ${kind} ${id}`);
  lift.dataset.key = `lift ${verb} ${kind} ${id} ${issuer}`;
  lift.addEventListener("click", () => ask({ verb: LIFTING[verb], kind, id, ...(issuer ? { issuer } : {}) }));
  return make("tr", {},
    what,
    make("td", {}, order.reason || "–"),
    make("td", {}, order.by || "–"),
    make("td", { className: "time" }, when(order.at, now)),
    make("td", { className: "time" }, order.until === null ? "lifted" : when(order.until, now)),
    make("td", {}, lift),
  );
}

function showReplicas({ store, replicas, now }) {
  $("replicas").hidden = store === null;
  if (store === null) return;
  $("replicas-meta").textContent = [
    plural(replicas.length, "replica"),
    store.is_up ? "the store answers" : `nothing heard of the store for ${span(store.age)}`,
  ].join(" · ");
  $("replicas-note").textContent = store.error;
  replace($("replica-rows"), replicas.map((replica) => replicaRow(replica, now)));
}

function replicaRow(replica, now) {
  const [kind, words] = replica.applied === "" ? ["deny", "✕ none"]
    : replica.is_behind ? ["warn", "! behind"] : ["allow", "✓ all"];
  const name = make("td", {}, make("code", { title: replica.id }, replica.host || replica.id));
  if (replica.is_this) name.append(" ", make("span", { className: "tag" }, "this one"));
  const [policy, digest] = replica.policy.split(/ (?=\S+$)/);
  return make("tr", {},
    name,
    make("td", {}, replica.version),
    make("td", {}, replica.region || "–"),
    make("td", {}, policy || "none", make("span", { className: "second" }, digest ?? "")),
    make("td", {}, make("span", { className: `tag ${kind}`, title: `up to ${replica.applied || "nothing"}` }, words)),
    make("td", { className: "number" }, replica.keys_age === null ? "–" : span(replica.keys_age)),
    make("td", { className: "number" }, number(replica.workers)),
    make("td", { className: "number" }, span(now - replica.started)),
  );
}
