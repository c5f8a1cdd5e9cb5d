// The orders in force, and a form to give another.

import { ask } from "/act.js";
import { $, make, moment, number, plural, replace, span } from "/dom.js";
import { beside, client, isolated, nameOrId, ownerOf } from "/names.js";
import { nameOf } from "/replicas.js";

const LIFTING = { suspend: "resume", revoke: "reinstate" };

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
  showSource(overview);
  $("orders-empty").hidden = count + tokens > 0;
  const parts = [count > 0 ? plural(count, "order") : "", tokens > 0 ? `${plural(tokens, "revoked token")}` : ""];
  $("orders-meta").textContent = parts.filter(Boolean).join(" · ");
  $("order-table").hidden = orders.length === 0;
  replace($("order-rows"), orders.map((order) => row(order, now)));
  $("orders-note").textContent = count > orders.length ? `The latest ${number(orders.length)} of them.` : "";
}

// How far what happens in WorkOS has become orders, and which replica sees to that.
function showSource({ source, store, now }) {
  $("orders-source").hidden = source === null;
  if (source === null) return;
  const { leader, cursor, age, error } = source;
  const upTo = cursor?.id ? ["followed up to ", make("code", {}, cursor.id), " of ", moment(cursor.at, now)] : ["no event yet"];
  const parts = [leader && `by ${nameOf(leader)}`, store && !leader && "no replica follows it now", age !== null && `heard ${span(age)} ago`];
  $("orders-source").replaceChildren(
    make("b", {}, "WorkOS"), " ", ...upTo, ...parts.filter(Boolean).map((part) => ` · ${part}`),
    ...(error ? [" ", make("span", { className: "tag warn" }, "! failing"), " ", isolated(error)] : []),
  );
}

const hasSeveral = () => ["revoke client", "revoke organization", "revoke key"].includes($("order-what").value);

function describe() {
  $("order-earlier").disabled = !about.can_act || !hasSeveral();
}

function row(order, now) {
  const { verb, kind, id, issuer } = order;
  const isOrganization = kind === "organization";
  const name = isOrganization ? [make("code", { title: id }, nameOrId(id))] : client(id, order.application);
  const what = make("td", { className: "what" }, make("span", { className: "tag deny" }, `${verb} ${kind}`), " ", ...name);
  if (isOrganization) what.append(...beside(id));
  const owner = kind === "client" ? ownerOf(id) : "";
  if (owner) what.append(make("span", { className: "second", title: owner }, "of ", nameOrId(owner)));
  if (issuer) what.append(make("span", { className: "second" }, `of ${issuer}`));
  if (order.issued_before !== null) {
    what.append(make("span", { className: "second" }, "only tokens issued before ", moment(order.issued_before, now)));
  }
  const lift = make("button", { type: "button", disabled: !about.can_act }, "Lift");
  lift.setAttribute("aria-label", `Lift: ${verb} ${kind} ${id}`);
  lift.dataset.key = `lift ${verb} ${kind} ${id} ${issuer}`;
  lift.addEventListener("click", () => ask({ verb: LIFTING[verb], kind, id, ...(issuer ? { issuer } : {}) }));
  return make("tr", {},
    what,
    make("td", { className: "reason" }, isolated(order.reason || "–")),
    make("td", { className: "by" }, isolated([order.by, order.source && `from ${order.source}`].filter(Boolean).join(", ") || "–")),
    make("td", { className: "time given" }, moment(order.at, now)),
    make("td", { className: "time until" }, order.until === null ? "it is lifted" : moment(order.until, now)),
    make("td", { className: "lift" }, lift),
  );
}
