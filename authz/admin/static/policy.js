// The rules in the order in which they are asked, and how often each has decided.

import { $, clock, make, number, plural, replace, short } from "/dom.js";

export function show(policy) {
  const has = policy.policy !== null;
  $("policy-name").textContent = has ? policy.policy : "";
  $("policy-table").hidden = !has;
  if (!has) {
    $("policy-meta").textContent = "";
    $("policy-note").textContent = "There is no policy: whoever has a good token may call everything. Give one with --policy.";
    return;
  }
  const never = policy.rules.filter((rule) => rule.hits === 0).length;
  const organizations = policy.organizations > 0 ? `${plural(policy.organizations, "organization")} listed` : "";
  const suspended = policy.suspended_count > 0 ? `${number(policy.suspended_count)} suspended` : "";
  $("policy-meta").textContent = [
    plural(policy.rule_count, "rule"), never > 0 ? `${number(never)} never hit` : "", organizations, suspended,
  ].filter(Boolean).join(" · ");
  replace($("policy-rows"), policy.rules.map(row));
  const publics = policy.public.length > 0 ? ` Public: ${policy.public.join(", ")}.` : "";
  const more = policy.rule_count > policy.rules.length ? ` The first ${number(policy.rules.length)} are shown.` : "";
  $("policy-note").textContent =
    `Asked from top to bottom; what no rule allows is denied. Hits are counted since ${clock(policy.since)}.${publics}${more}`;
}

function row(rule) {
  const isDeny = rule.list === "deny_rules";
  const isNever = rule.hits === 0;
  return make("tr", { className: isNever ? "never" : "" },
    make("td", {}, make("span", { className: `tag ${isDeny ? "deny" : "allow"}` }, isDeny ? "✕ deny" : "✓ allow")),
    make("td", {}, make("code", {}, rule.name)),
    make("td", {}, ...(rule.conditions.length > 0 ? rule.conditions.map(condition) : ["nothing: it matches every call"])),
    make("td", { className: "number" }, isNever ? "0" : short(rule.hits)),
    make("td", {}, isNever ? make("span", { className: "tag warn" }, "○ never hit since start") : clock(rule.last)),
  );
}

function condition([kind, alternatives]) {
  return make("span", { className: "condition" }, make("b", {}, `${kind} `), make("code", {}, alternatives));
}
