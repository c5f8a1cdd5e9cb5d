// The verdict on an imagined call, step by step.

import { post } from "/api.js";
import { $, make, moment, span, verdict } from "/dom.js";
import { isolated, titleOf } from "/names.js";

const SIGNS = { passed: "✓", failed: "✕", unknown: "?" };
const MARKS = [[true, "+", "matches"], [false, "−", "does not match"], [null, "?", "cannot tell"]];

let meanings = {};

export function begin(about) {
  meanings = about.meanings;
  $("question").addEventListener("submit", (event) => {
    event.preventDefault();
    explain();
  });
}

export function suggest(methods) {
  const list = $("methods");
  if (methods.join() === [...list.options].map((option) => option.value).join()) return;
  list.replaceChildren(...methods.map((method) => make("option", { value: method })));
}

async function explain() {
  const question = {};
  for (const name of ["method", "verb", "token", "organization", "client", "scopes"]) {
    const value = $(`ask-${name}`).value.trim();
    if (value) question[name] = value;
  }
  const panel = $("explanation");
  try {
    panel.replaceChildren(...report(await post("/api/explain", question)));
  } catch (error) {
    panel.replaceChildren(make("p", { className: "trouble" }, error.message));
  }
}

function report(answer) {
  const { verdict: word, reason, steps, explanation, caller, policy } = answer;
  const outcome = make("p", { className: "outcome" }, verdict(word));
  if (reason) outcome.append(make("code", {}, reason), make("span", {}, meanings[reason] ?? ""));
  const parts = [outcome, make("ol", { className: "steps" }, ...steps.map(step))];
  if (explanation) parts.push(make("dl", {}, ...why(explanation)));
  if (caller) parts.push(make("dl", {}, ...facts(caller)));
  if (policy) parts.push(rules(policy));
  return parts;
}

function step({ name, outcome, words }) {
  return make("li", { className: outcome },
    make("span", { className: "sign", role: "img", "aria-label": outcome }, SIGNS[outcome]), make("b", {}, name), make("span", {}, words));
}

function why({ found, expected, setting }) {
  return listed([["found", found], ["expected", expected], ["setting", setting]]);
}

function listed(pairs) {
  return pairs.filter(([, value]) => value)
    .flatMap(([name, value]) => [make("dt", {}, name), make("dd", { className: "mono" }, typeof value === "string" ? isolated(value) : value)]);
}

function facts(caller) {
  const left = caller.expires_at === null ? "" : caller.expires_at - Date.now() / 1000;
  const times = left === "" ? "" : make("span", {}, moment(caller.expires_at), left > 0 ? `, in ${span(left)}` : `, ${span(-left)} ago`);
  const { name = titleOf(caller.organization), tenant } = caller.called;
  return listed([
    ["name", name === caller.organization ? "" : name], ["organization", caller.organization], ["tenant", tenant], ["client", caller.client], ["application", caller.client_name], ["scopes", caller.scopes.join(" ")],
    ["issuer", caller.issuer], ["token id", caller.token_id], ["key id", caller.key_id], ["expires", times],
  ]);
}

function rules(policy) {
  const rows = policy.rules.map((rule) => {
    const [, mark, words] = MARKS.find(([matches]) => matches === rule.matches);
    const decides = rule.list === policy.list && rule.name === policy.rule ? ", and decides" : "";
    const line = make("li", {}, make("code", {}, `${mark} ${rule.name}`), ` (${rule.list}) ${words}${decides}`);
    for (const failure of rule.failed) line.append(make("span", { className: "second" }, failure));
    return line;
  });
  return make("details", {}, make("summary", {}, `Every rule of ${policy.name}`), make("ul", {}, ...rows));
}
