"""The commands ``authz policy …``; each is imported when it is used."""

import cyclopts

policy = cyclopts.App(name="policy", help="What each organization may do: check it, test it, explain it.")
policy.command("authz.cli.policy.cases:run_cases", name="test")
policy.command("authz.cli.policy.explain:explain")
policy.command("authz.cli.policy.diff:diff")
policy.command("authz.cli.policy.check:check")
