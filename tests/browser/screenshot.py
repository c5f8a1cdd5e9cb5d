"""Make the picture of docs/admin.md: ``python -m tests.browser.screenshot docs/admin.png`` (``make screenshot``).

The verdicts are those of a real judge about real tokens; only the time at which the calls came in is made up.
"""

import asyncio
import io
import random
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from PIL import Image
from playwright.async_api import Page, async_playwright

from authz.call.call import Call
from authz.decisions.decision import Decision, Evidence
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.policy import Policy
from authz.policy.protos.access import Access
from authz.policy.protos.declared import Protos
from authz.runtime.clock import Clock
from authz.runtime.flow import run
from authz.runtime.text.document import Document
from authz.server.admin.activity import Activity
from authz.server.admin.app import admin_app
from authz.server.admin.one_process import OwnProcess
from authz.server.operations import web
from tests.browser.chromium import ARGUMENTS, path_of_chromium
from tests.doubles import AUDIENCE, ISSUER, FakeIssuer, m2m_claims

SECRET = "a-secret-for-this-picture"
SIZE = {"width": 1280, "height": 1000}
LEDGER, REPORTS = "/ledger.v1.Ledger", "/reports.v1.Reports"

POLICY = """
name: ledger
deny_rules:
- {name: trials-do-not-import, source: {groups: [trial]}, request: {paths: [/ledger.v1.Ledger/Import]}}
- name: no-purge-from-outside
  source: {scopes: [admin]}
  request: {paths: ["*/Purge"], headers: [{key: x-region, values: [outside]}]}
allow_rules:
- {name: customers, source: {groups: [paying, trial]}, request: {paths: [/ledger.v1.Ledger/*]}}
- {name: reports, source: {groups: [paying]}, request: {paths: [/reports.v1.Reports/*]}}
- name: initech-migration
  source: {clients: [client_01JYINITECH00000000000009]}
  request: {paths: [/ledger.v1.Migration/*]}
public: [/grpc.health.v1.Health/Check]
quotas: {trial: {requests_per_second: 50, burst: 500}}
organizations:
  org_01JYACME000000000000000001: {name: Acme Freight, tenant: acme-7, groups: [paying]}
  org_01JYGLOBEX0000000000000001: {name: Globex Retail, tenant: globex-2, groups: [trial], quota: trial}
  org_01JYINITECH000000000000001: {tenant: initech-1, groups: [paying]}
  org_01JYUMBRELLA00000000000001: {name: Umbrella, tenant: umbrella-3, groups: [paying], status: suspended}
"""
# What the .proto of the reports would declare.
PROTO = {f"{REPORTS}/Get": Access(scopes=(frozenset(["reports:read"]),))}


class Partner(NamedTuple):
    """Who calls, and how often compared with others."""

    name: str
    weight: int
    scopes: str = "ledger:read ledger:write reports:read"

    def token(self, key: SigningKey, **changes: Any) -> str:
        client = f"client_01JY{self.name}".ljust(31, "0") + "2"
        claims = {"org_id": self.organization, "client_id": client, "sub": client, "scope": self.scopes, **changes}
        return key.sign(m2m_claims(time.time(), **claims))

    @property
    def organization(self) -> str:
        return f"org_01JY{self.name}".ljust(29, "0") + "1"


PARTNERS = (
    Partner("ACME", 60),
    Partner("INITECH", 25),
    Partner("GLOBEX", 12, "ledger:read ledger:write"),
    Partner("UMBRELLA", 4),
)


class Traffic:
    """Calls of five minutes."""

    def __init__(self, authorizer: Authorizer, activity: Activity, key: SigningKey) -> None:
        self._authorizer, self._activity = authorizer, activity
        self._random = random.Random(7)  # noqa: S311 - a picture
        self._tokens = {partner: partner.token(key) for partner in PARTNERS}
        self._old = PARTNERS[1].token(key, exp=int(time.time()) - 60, iat=int(time.time()) - 900)

    def call(self, at: float) -> None:
        """Have any call decided, as if it had come in then."""
        chance = self._random
        [partner] = chance.choices(PARTNERS, [partner.weight for partner in PARTNERS])
        methods = {f"{LEDGER}/PostEntry": 50, f"{LEDGER}/ListEntries": 40, f"{REPORTS}/Get": 9, f"{LEDGER}/Import": 8}
        [method] = chance.choices(list(methods), list(methods.values()))
        token, fate = self._tokens[partner], chance.random()
        if fate < 0.01:
            token = f"{token[:-8]}AAAAAAAA"
        elif fate < 0.03:
            token = self._old
        if fate > 0.985:
            method, token = "/grpc.health.v1.Health/Check", ""
        self.decide(method, "" if 0.03 < fate < 0.05 else token, at)

    def last(self, at: float) -> None:
        """Have the calls decided that the picture shows in full: some of each kind."""
        acme, initech, globex, umbrella = self._tokens.values()
        for method, token in (
            (f"{LEDGER}/PostEntry", acme),
            (f"{REPORTS}/Get", initech),
            (f"{LEDGER}/Import", globex),
            (f"{LEDGER}/ListEntries", acme),
            (f"{LEDGER}/PostEntry", umbrella),
            ("/grpc.health.v1.Health/Check", ""),
            (f"{LEDGER}/ListEntries", globex),
            (f"{LEDGER}/PostEntry", self._old),
            (f"{LEDGER}/PostEntry", acme),
        ):
            self.decide(method, token, at)
            at += 0.13

    def decide(self, method: str, token: str, at: float) -> None:
        """Have one call decided, as if it had come in then."""
        credentials = [f"Bearer {token}"] if token else []
        call, evidence, refusal = Call(method=method, metadata=[], credentials=credentials), Evidence(), None
        began = time.perf_counter()
        try:
            run(self._authorizer.authorize(call, evidence))
        except AuthzError as error:
            refusal = self._authorizer.telling.refusal(call, error)
        self._activity(Decision(call, evidence, refusal, time.perf_counter() - began, time=at))

    def times(self, until: float) -> Iterator[float]:
        at = until - 299
        while at < until:
            slow = 1.4 if until - 170 < at < until - 120 else 1.0
            at += self._random.expovariate(9 / slow)
            yield min(at, until)


async def pose(page: Page, url: str) -> None:
    """Bring the page into the state that is shown."""
    await page.goto(url)
    await page.locator(".organizations .name").first.wait_for()
    await page.locator("#organizations").get_by_role("button", name="Globex Retail").click()
    await page.locator("#filter-organization").fill("")
    await page.locator("#ask-method").fill(f"{LEDGER}/Import")
    await page.locator("#ask-organization").fill(PARTNERS[2].organization)
    await page.get_by_role("button", name="Explain").click()
    await page.locator("#explanation .verdict").wait_for()
    await page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")


async def main(path: str, scheme: Any = "light", scale: str = "1", width: str = "1280") -> None:
    """Write the picture to ``path``."""
    key = SigningKey.generate("ec-1", "ES256")
    verifier = Verifier(
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=["ES256"],
        transport=FakeIssuer(key, SigningKey.generate("ec-2", "ES256")).transport,
    )
    # The page says how long the server has run, and since when rules are counted.
    activity = Activity(clock=Clock(lambda: time.time() - 3 * 3600 - 720, time.monotonic))
    policy = Policy(Document(yaml.safe_load(POLICY), "policy"), Protos.of(PROTO, "services"))
    authorizer = Authorizer(verifier, policy=policy)
    source = OwnProcess(authorizer, activity)
    traffic = Traffic(authorizer, activity, key)
    for at in traffic.times(time.time()):
        traffic.call(at)

    async def go_on() -> None:
        while True:
            await asyncio.sleep(0.11)
            traffic.call(time.time())

    async with web.serving(admin_app(source, secret=SECRET), "127.0.0.1:0", setting="admin", event="admin") as address:
        going_on = asyncio.create_task(go_on())
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=path_of_chromium(), args=ARGUMENTS)
            page = await browser.new_page(
                viewport={**SIZE, "width": int(width)},
                color_scheme=scheme,
                reduced_motion="reduce",
                device_scale_factor=float(scale),
            )
            await pose(page, f"http://{address}/")
            await asyncio.sleep(2.5)
            going_on.cancel()
            traffic.last(time.time())
            await asyncio.sleep(1.5)
            picture = await page.screenshot(full_page=True)
            await browser.close()
    # A page has few colours, and a repository keeps every picture for ever.
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
