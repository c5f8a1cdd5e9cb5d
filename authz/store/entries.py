"""Orders as the store keeps them, and the scripts that write and remove them there."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from authz.errors import ConfigError
from authz.judge.orders.book import TOKEN_SECONDS, is_over
from authz.judge.orders.order import Act, Kind, Order, Subject
from authz.store.connection import Script

Name = tuple[Act, Kind, str]
"""What orders are about, whose ever it is."""

TOKEN = "revoke token "  # noqa: S105 - no secret
"""What the subject of a token begins with; then comes the name under which it is listed."""

FIELD = b"o"
"""The one field of an entry in the log."""

_AT_DIGITS = 16

# Times are compared as text, of 16 digits each; the JSON after them decides where they are equal. Lua would compare by
# the locale of the server, so bytes are compared one by one.
WRITE = Script("""
local state, tokens, log, epoch = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local format, most = ARGV[2], ARGV[3]
local known = redis.call('GET', epoch)
if not known then
  redis.call('SET', epoch, ARGV[1])
elseif string.sub(known, 1, #format) ~= format then
  return redis.error_reply('FORMAT of another kind')
end
local function counts_before(one, other)
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a < b end
  end
  return #one < #other
end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local written = 0
for i = 4, #ARGV, 4 do
  local subject, at, text, ends = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local before = redis.call('HGET', state, subject)
  if before and not tonumber(string.sub(before, 1, 16)) then before = false end
  if at == '' and before then
    at = string.format('%016.0f', math.max(now, string.sub(before, 1, 16) + 1))
  elseif at == '' then
    at = string.format('%016.0f', ends == '' and now or 0)
  end
  local value, is_news = at .. ' ' .. text, false
  if tonumber(at) > 0 then
    is_news = not before or counts_before(before, value)
    if is_news then redis.call('HSET', state, subject, value) end
  elseif ends ~= '' and not before then
    is_news = redis.call('ZADD', tokens, 'GT', 'CH', ends, string.sub(subject, 14)) == 1
  end
  if is_news then
    redis.call('XADD', log, 'MAXLEN', '~', most, '*', 'o', value)
    written = written + 1
  end
end
local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
return {last[1] and last[1][1] or '0-0', written}
""")

# For one replica at a time, until it lets go (0) or says nothing for so many milliseconds.
LEASE = Script("""
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1
""")

# What is over is removed only if it is still the same. A token that was reinstated must not count as listed then.
FORGET = Script("""
for i = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
    if string.sub(ARGV[i], 1, 13) == 'revoke token ' then redis.call('ZREM', KEYS[2], string.sub(ARGV[i], 14)) end
  end
end
local ended = redis.call('ZRANGE', KEYS[2], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, 1000)
if #ended > 0 then redis.call('ZREM', KEYS[2], unpack(ended)) end
return #ended
""")


def spelled_out(orders: Sequence[Order], named: Callable[[set[Name]], Iterable[Subject]]) -> Iterator[Order]:
    """Yield orders; one that takes back what was ordered about a name, once for every issuer's.

    Args:
        orders: the orders.
        named: returns the subjects that there are orders about, of such names.

    """
    # Only what is revoked may be one issuer's.
    wanted = {order.subject[:3] for order in orders if order.verb == "reinstate" and not order.issuer}
    issuers: dict[Name, set[str]] = {}
    for subject in named(wanted):
        issuers.setdefault(subject[:3], set()).add(subject.issuer)
    for order in orders:
        yield order
        if order.is_lifting and not order.issuer:
            for issuer in sorted(issuers.get(order.subject[:3], set()) - {""}):
                yield order._replace(issuer=issuer)


def subject_text(order: Order) -> str:
    """Return what an order is about, as the field of the hash in which it is kept."""
    act, kind, name, issuer = order.subject
    return f"{act} {kind} {issuer} {name}"


def subject_of(field: str) -> Subject | None:
    """Return what a field of the hash is about; ``None`` if it is none of ours."""
    try:
        act, kind, issuer, name = field.split(" ", 3)
    except ValueError:
        return None
    return Subject(act, kind, name, issuer)  # type: ignore[arg-type]


def at_text(order: Order) -> str:
    """Return the time of an order, in as many digits as any other's."""
    return f"{order.at:0{_AT_DIGITS}d}"


def ending(order: Order, now: float) -> Order:
    """Return ``order``, if it revokes a token with the end of that."""
    if order.kind != "token" or order.verb != "revoke" or order.until is not None:
        return order
    return order._replace(until=now + TOKEN_SECONDS)


def entry_of(order: Order, at: str) -> tuple[str | bytes, ...]:
    """Return the arguments of :data:`WRITE` for an order.

    Args:
        order: the order.
        at: its time; empty for the store to say.

    """
    ends = str(order.until or 0) if order.kind == "token" and order.verb == "revoke" else ""
    return subject_text(order), at, order.text(), ends


def parsed(entry: bytes) -> Order:
    """Return the order that an entry is.

    Raises:
        ConfigError: it is none.

    """
    at, _, text = entry.partition(b" ")
    if len(at) != _AT_DIGITS or not at.isdigit():
        raise ConfigError("at: not a time")
    order = Order.parse(text, int(at))
    if not order.at and not order.is_listing:
        raise ConfigError("at: missing")
    return order


def is_behind(value: bytes | None, order: Order) -> bool:
    """Say whether what the store knows about a subject is older than ``order``, or no order."""
    return value is None or not value[:_AT_DIGITS].isdigit() or value < f"{at_text(order)} ".encode() + order.text()


def is_over_text(value: bytes, now: float) -> bool:
    """Say whether an entry is an order that no longer says anything; see :func:`is_over`."""
    try:
        return is_over(parsed(value), now)
    except ConfigError:
        return False


def number_of(name: str) -> tuple[int, ...]:
    """Return the id of an entry as what ids are compared by."""
    return tuple(map(int, name.split("-")))


def escaped(name: str) -> str:
    """Return a pattern that only ``name`` matches."""
    return "".join(f"\\{char}" if char in "*?[]^\\" else char for char in name)
