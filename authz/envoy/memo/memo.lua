-- Repeats a yes of the authorization server to calls like the one that it was said to. A no is never repeated: a call
-- that this script does not know, or is not sure of, goes on to ext_authz, which asks. An error in it has the same
-- effect, because the mark that ext_authz looks for (authz.memo: decided) is set last.
--
-- Two names stand before this text: GENERATION, which is another one as soon as any answer may be over, and REMOVED, the
-- headers that only the server may set. A new generation is a new script with a memory of its own, so it starts empty.

local MAX_CREDENTIAL, MAX_TARGET, MAX_PATH, MAX_CERTIFICATE = 4096, 2048, 256, 16384 -- characters
local MAX_YES, MAX_CALLS = 10000, 64 -- answers in each of the two halves of the memory, and of one caller
local MAX_ASKED = 1024 -- questions that wait for an answer
local MEMO, ASKED, CHECK = "authz.memo", "authz.asked", "envoy.filters.http.ext_authz"

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

-- Returns what the server's answer depends on: the credential, and the path with the kind of call. Nothing if it may
-- depend on more, or if that is too long to be remembered.
local function question(handle)
  local headers = handle:headers()
  local credential, target = headers:get("authorization") or "", headers:get(":path") or ""
  local kind = headers:get("content-type") or ""
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
  return credential, (is_grpc and "g" or "h") .. path
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
  if not yes or now >= yes.over then
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
  -- For access logs and later filters, as if the server had been asked.
  if about.organization then
    metadata:set(CHECK, "organization", about.organization)
    metadata:set(CHECK, "client", about.client)
  end
  metadata:set(MEMO, "generation", GENERATION)
  metadata:set(MEMO, "about", about)
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
  -- It counts from before the server was asked, and by this clock alone.
  local over = question.at + 1000 * memo.seconds
  local yes = { over = over, headers = said.caller.headers, about = said.caller.about }
  -- What anybody may call is remembered once: else anybody could fill the memory.
  remember(memo.public and ANYBODY or question.credential, question.call, yes)
end
