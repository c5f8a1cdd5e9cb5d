// What organizations and applications are called. Names stand beside ids, never instead of them: several may have the
// same name.

import { brief, make } from "/dom.js";

const MOST = 5000;

const known = new Map();
const owners = new Map();
const applications = new Map();

// Returns whether that was news.
function learn(id, { name = "", tenant = "" }) {
  const before = known.get(id);
  if (!id || !(name || tenant) || (before?.name === name && before?.tenant === tenant)) return false;
  known.delete(id);
  known.set(id, { name, tenant });
  if (known.size > MOST) known.delete(known.keys().next().value);
  return true;
}

const learnAll = (names) => Object.entries(names ?? {}).filter(([id, called]) => learn(id, called ?? {})).length > 0;

export const learnDecisions = (decisions) =>
  decisions.filter(({ organization, called }) => learn(organization, called ?? {})).length > 0;

export function learnOverview({ names, organizations, orders }) {
  owners.clear();
  applications.clear();
  for (const { id, clients, applications: called } of organizations) {
    for (const client of Object.keys(clients)) owners.set(client, id);
    for (const [client, { name }] of Object.entries(called ?? {})) applications.set(client, name);
  }
  for (const { id, application } of orders) if (application?.name) applications.set(id, application.name);
  const called = organizations.filter(({ id, known: facts }) => learn(id, facts ?? {})).length > 0;
  return learnAll(names) || called;
}

export const learnPolicy = ({ names }) => learnAll(names);

// The organization whose client that is, as far as this page has seen.
export const ownerOf = (client) => owners.get(client) ?? "";

// In a text: an application's name if it has one, and its id.
export const titleOfClient = (id) => [applications.get(id), id].filter(Boolean).join(" · ");

// A client id, and before it what the application is called; its description is in the title.
export function client(id, { name = "", description = "" } = {}) {
  const code = make("code", { title: id }, brief(id));
  return name ? [make("span", { className: "application", title: description }, isolated(name)), " ", code] : [code];
}

export function calledOf(id) {
  const { name, tenant } = known.get(id) ?? {};
  return { ...(name && { name }), ...(tenant && { tenant }) };
}

export const titleOf = (id) => known.get(id)?.name || id;

export const named = (id) => {
  const { name, tenant } = known.get(id) ?? {};
  return [name || id, ...(name ? [id] : []), ...(tenant ? [`tenant ${tenant}`] : [])].join(" · ");
};

export function isLike(id, text) {
  const { name = "", tenant = "" } = known.get(id) ?? {};
  return [id, name, tenant].some((each) => each.toLowerCase().includes(text.toLowerCase()));
}

// A name of any script and direction cannot change the order of the text beside it.
export const isolated = (text) => make("bdi", {}, text);

// What stands below the name: id and tenant, or only the tenant where the id is the name.
export function beside(id) {
  const { name, tenant } = known.get(id) ?? {};
  const parts = [];
  if (name) parts.push(make("code", { title: id }, brief(id)));
  if (tenant) parts.push(make("span", { className: "tenant" }, "tenant ", isolated(tenant)));
  return parts.length > 0 ? [make("span", { className: "second" }, ...parts.flatMap((part, at) => (at > 0 ? [" ", part] : [part])))] : [];
}

// In a line: the name if there is one, else the short id; the whole id is in the title.
export function nameOrId(id) {
  const name = known.get(id)?.name;
  return name ? isolated(name) : brief(id);
}
