// The rules in the order in which they are tried, and how often each has decided.

import { $, make, moment, number, plural, replace, short } from "/dom.js";

export function show(policy) {
  const has = policy.policy !== null;
  $("policy-name").textContent = has ? policy.policy : "";
  $("policy-table").hidden = !has;
  if (!has) {
    $("policy-meta").textContent = "";
    $("policy-note").textContent = "There is no policy: every caller with a good token may call everything. Give one with --policy.";
    return;
  }
  const never = policy.rules.filter(isIdle).length;
  const organizations = policy.organizations > 0 ? `${plural(policy.organizations, "organization")} listed` : "";
  const suspended = policy.suspended_count > 0 ? `${number(policy.suspended_count)} suspended` : "";
  $("policy-meta").textContent = [
    plural(policy.rule_count, "rule"), never > 0 ? `${number(never)} never used` : "", organizations, suspended,
  ].filter(Boolean).join(" · ");
  replace($("policy-rows"), policy.rules.map(row));
  const publics = policy.public.length > 0 ? ` Public: ${policy.public.join(", ")}.` : "";
  const more = policy.rule_count > policy.rules.length ? ` The first ${number(policy.rules.length)} are shown.` : "";
  const needed = policy.rules.some(isProto) ? " What the .proto requires is needed, whatever allows the call." : "";
  $("policy-note").replaceChildren(
    `Tried from top to bottom; what no rule allows is denied.${needed} Counted since `, moment(policy.since), `.${publics}${more}`);
}

const isProto = (rule) => rule.list === "proto";
// A .proto has a rule for every method, and beside a policy file such a rule only refuses: no hits mean nothing.
const isIdle = (rule) => rule.hits === 0 && !isProto(rule);

const EFFECTS = {
  deny_rules: ["deny", "✕ deny"],
  proto: ["", "⚙ .proto requires"],
  allow_rules: ["allow", "✓ allow"],
};

function row(rule) {
  const [kind, words] = EFFECTS[rule.list];
  const isNever = isIdle(rule);
  return make("tr", { className: isNever ? "never" : "" },
    make("td", {}, make("span", { className: `tag ${kind}`.trim() }, words)),
    make("td", {}, make("code", {}, rule.name)),
    make("td", { className: "asked" }, ...asked(rule)),
    make("td", { className: "number hits" }, short(rule.hits)),
    make("td", { className: isNever ? "last" : "time last" }, isNever ? make("span", { className: "tag warn" }, "○ never used") : rule.last === null ? "" : moment(rule.last)),
  );
}

function asked(rule) {
  // The name of the rule is the method.
  const conditions = rule.conditions.filter(([kind]) => kind !== "method" || !isProto(rule));
  if (conditions.length > 0) return conditions.map(condition);
  return [isProto(rule) ? "a good token" : "nothing: it matches every call"];
}

function condition([kind, alternatives]) {
  return make("span", { className: "condition" }, make("b", {}, `${kind} `), make("code", {}, alternatives));
}
