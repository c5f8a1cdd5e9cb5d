-- Repeats a yes of the authorization server to calls like the one that it was said to. A no is never repeated: a call
-- that this script does not know, or is not sure of, goes on to ext_authz, which asks. An error in it has the same
-- effect, because the mark that ext_authz looks for (authz.memo: decided) is set last.
--
-- Three names stand before this text: GENERATION, which is another one as soon as any answer may be over; REMOVED, the
-- headers that only the server may set; and OVERRIDES, those that some servers take for the HTTP method. A new generation is a new script with a memory of its own, so it starts empty.

local MAX_CREDENTIAL, MAX_TARGET, MAX_PATH, MAX_CERTIFICATE = 4096, 2048, 256, 16384 -- characters
local MAX_YES, MAX_CALLS = 10000, 64 -- answers in each of the two halves of the memory, and of one caller
local MAX_ASKED = 1024 -- questions that wait for an answer
local LONGEST = 999999990 -- tenths of a second
local DURATION, COURTESY = "x-envoy-upstream-stream-duration-ms", 500
local UNITS = { H = 3600000, M = 60000, S = 1000, m = 1, u = 1e-3, n = 1e-6 }
local MEMO, ASKED, CHECK = "authz.memo", "authz.asked", "envoy.filters.http.ext_authz"

-- No others: a caller could make up any number of them.
local VERBS = { GET = true, HEAD = true, POST = true, PUT = true, PATCH = true, DELETE = true, OPTIONS = true }

local ANYBODY = "" -- the credential of answers that hold for every caller; one without a credential has the same
local young, old, size = {}, {}, 0 -- by credential and call; the older half is dropped when the younger one is full
local asked, number = {}, 0
local latest = 0

-- Twice what is remembered lies in memory by default before garbage is collected.
collectgarbage("setpause", 125)

-- Milliseconds by a clock that nobody sets, and that goes on while the machine is suspended; Envoy's own may be set back.
local function boot_clock()
  local ffi = require("ffi")
  if ffi.os ~= "Linux" then error("CLOCK_BOOTTIME has this number on Linux") end
  ffi.cdef("typedef struct { long seconds, nanoseconds; } authz_time; int clock_gettime(int, authz_time *);")
  local time, CLOCK_BOOTTIME = ffi.new("authz_time"), 7
  if ffi.C.clock_gettime(CLOCK_BOOTTIME, time) ~= 0 then error("there is no such clock") end
  return function()
    ffi.C.clock_gettime(CLOCK_BOOTTIME, time)
    return tonumber(time.seconds) * 1000 + tonumber(time.nanoseconds) / 1000000
  end
end
local has_clock, clock = pcall(boot_clock)

-- Returns what the server's answer depends on: the credential, and the HTTP method and the path with the kind of call.
-- Nothing if it may depend on more, or if that is too long to be remembered.
local function question(handle)
  local headers = handle:headers()
  local credential, target = headers:get("authorization") or "", headers:get(":path") or ""
  local kind, verb = headers:get("content-type") or "", headers:get(":method")
  if not VERBS[verb] then return end
  if #credential > MAX_CREDENTIAL or #target > MAX_TARGET then return end
  -- Envoy joins several headers of one name; the server sees them apart.
  if credential:find(",", 1, true) or kind:find(",", 1, true) then return end
  local path = target:match("^[^?]*")
  if path == "" or #path > MAX_PATH then return end
  -- The server refuses certificates that are too large for it.
  local tls = handle:streamInfo():downstreamSslConnection()
  if tls and #tls:urlEncodedPemEncodedPeerCertificate() > MAX_CERTIFICATE then return end
  -- The server wants more of the path of a gRPC call.
  local is_grpc = kind == "application/grpc" or kind:sub(1, 17) == "application/grpc+"
  return credential, (is_grpc and "g" or "h") .. verb .. " " .. path
end

-- Says whether a server may take the HTTP method of a call for another one.
local function is_overridden(headers)
  for i = 1, #OVERRIDES do
    if headers:get(OVERRIDES[i]) then return true end
  end
end

-- Returns the header in which the protocol of a call has its deadline, as the server knows it. HTTP has none.
local function deadline_of(kind)
  if kind == "application/grpc" or kind:sub(1, 17) == "application/grpc+" then return "grpc-timeout" end
  local media = kind:match("^[^;]*"):gsub("%s+$", ""):lower()
  local web = media:sub(1, 20) == "application/grpc-web" and media:sub(21)
  if web and (web == "" or web:sub(1, 1) == "+" or web:sub(1, 5) == "-text") then return "grpc-timeout" end
  if media == "application/connect+proto" or media == "application/connect+json" then return "connect-timeout-ms" end
end

-- Returns a caller's own deadline in milliseconds; infinite if there is none, or it is not written as it must be.
local function own_deadline(name, text)
  local digits, unit = (text or ""):match("^(%d+)(%a?)$")
  if name == "grpc-timeout" then
    return digits and #digits <= 8 and UNITS[unit] and tonumber(digits) * UNITS[unit] or math.huge
  end
  return digits and #digits <= 10 and unit == "" and tonumber(digits) or math.huge
end

-- Returns a deadline as it is written there: in eight digits and a unit, or in ten digits.
local function deadline(name, milliseconds)
  if name == "connect-timeout-ms" then return string.format("%.0f", math.min(milliseconds, 9999999999)) end
  if milliseconds <= 99999999 then return string.format("%.0fm", milliseconds) end
  return string.format("%.0fS", math.ceil(milliseconds / 1000))
end

-- Has the call end after that many milliseconds, as the server's own answer would.
local function end_call(headers, left)
  local tenths = math.min(math.max(1, math.ceil(left / 100)), LONGEST)
  local name = deadline_of(headers:get("content-type") or "")
  headers:remove("x-envoy-retry-on")
  headers:remove("x-envoy-retry-grpc-on")
  headers:replace(DURATION, string.format("%.0f", tenths * 100 + (name and COURTESY or 0)))
  if not name or own_deadline(name, headers:get(name)) <= tenths * 100 then return end
  headers:remove(name)
  headers:replace(name, deadline(name, tenths * 100))
end

local function remembered(credential, call)
  local calls = young[credential] or old[credential]
  return calls and calls[call]
end

function envoy_on_request(handle)
  local credential, call = question(handle)
  if not credential then return end
  local now = has_clock and clock() or handle:timestamp()
  -- Envoy's clock was set back: what ends by it would live too long.
  if now < latest then young, old, size = {}, {}, 0 end
  latest = now
  local metadata = handle:streamInfo():dynamicMetadata()
  local yes = remembered(credential, call) or remembered(ANYBODY, call)
  if not yes or now >= yes.over or (yes.verbs and is_overridden(handle:headers())) then
    -- The credential itself does not go into the metadata, which may be logged.
    number = number + 1
    asked[number] = { credential = credential, call = call, at = now }
    asked[number - MAX_ASKED] = nil
    metadata:set(ASKED, "number", number)
    return
  end
  local headers, set, about = handle:headers(), yes.headers, yes.about
  for i = 1, #REMOVED do headers:remove(REMOVED[i]) end
  for i = 1, #set, 2 do headers:replace(set[i], set[i + 1]) end
  if yes.ends then end_call(headers, yes.ends - now) end
  -- For access logs and later filters, as if the server had been asked.
  if about.organization then
    metadata:set(CHECK, "organization", about.organization)
    metadata:set(CHECK, "client", about.client)
  end
  metadata:set(MEMO, "told", yes.told)
  metadata:set(MEMO, "decided", true)
end

local function remember(credential, call, yes)
  if size >= MAX_YES then young, old, size = {}, young, 0 end
  local calls = young[credential]
  -- One caller with many paths takes no other caller's place.
  if not calls or (calls.n >= MAX_CALLS and not calls[call]) then
    size = size - (calls and calls.n or 0)
    calls = { n = 0 }
    young[credential] = calls
  end
  if not calls[call] then calls.n, size = calls.n + 1, size + 1 end
  calls[call] = yes
end

function envoy_on_response(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local noted = metadata:get(ASKED)
  local question = noted and asked[noted.number]
  if not question then return end
  asked[noted.number] = nil
  local said = metadata:get(CHECK)
  local memo = said and said.memo
  -- An answer of another generation may be over already.
  if not memo or memo.generation ~= GENERATION then return end
  local yes = {
    -- It counts from before the server was asked, and by this clock alone.
    over = question.at + 1000 * memo.seconds,
    verbs = memo.verbs,
    ends = memo.tenths and question.at + 100 * memo.tenths,
    headers = said.caller.headers,
    about = said.caller.about,
    -- Made once: each text that is handed over for a call costs about a microsecond.
    told = said.caller.told .. " " .. question.call:sub(2),
  }
  -- What anybody may call is remembered once: else anybody could fill the memory.
  remember(memo.public and ANYBODY or question.credential, question.call, yes)
end
