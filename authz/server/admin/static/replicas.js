// The replicas that share a store, and what each is called here: by its host, if that says which one is meant.

import { $, brief, make, number, plural, replace, span } from "/dom.js";

const names = new Map();
let own = "";

// Decisions of this server do not say whose they are.
export const idOf = (decision) => decision.replica ?? own;
export const nameOf = (id) => names.get(id) ?? id.slice(0, 6);
export const areSeveral = () => names.size > 1;

export function show({ store, replicas, now }) {
  const hosts = replicas.map((replica) => replica.host);
  names.clear();
  for (const { id, host, is_this: isThis } of replicas) {
    const isClear = host && hosts.indexOf(host) === hosts.lastIndexOf(host);
    names.set(id, isClear ? brief(host) : `${brief(host)} ${id.slice(0, 6)}`.trim());
    if (isThis) own = id;
  }
  showChoice(replicas);
  $("replicas").hidden = store === null;
  if (store === null) return;
  $("replicas-meta").textContent = [
    plural(replicas.length, "replica"),
    store.is_up ? "the store answers" : `nothing heard of the store for ${span(store.age)}`,
  ].join(" · ");
  $("replicas-note").textContent = store.error;
  replace($("replica-rows"), replicas.map((replica) => row(replica, now)));
}

function showChoice(replicas) {
  const choice = $("filter-replica");
  const chosen = choice.value;
  $("filter-replica-label").hidden = !areSeveral() && chosen === "";
  // One that is chosen stays chosen when it has ended.
  const ids = new Set(["", ...replicas.map((replica) => replica.id), chosen]);
  const options = [...ids].map((id) => make("option", { value: id }, id === "" ? "all" : nameOf(id)));
  // A list that is open is closed by a change.
  const words = (all) => [...all].map((option) => `${option.value} ${option.textContent}`).join();
  if (words(options) === words(choice.options)) return;
  choice.replaceChildren(...options);
  choice.value = chosen;
}

function row(replica, now) {
  const [kind, words] = replica.applied === "" ? ["deny", "✕ none"]
    : replica.is_behind ? ["warn", "! behind"] : ["allow", "✓ all"];
  const name = make("td", {}, make("code", { title: replica.id }, nameOf(replica.id)));
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
