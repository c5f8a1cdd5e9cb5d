-- The clock of the machine, as LuaJIT's ffi gives it; without one, Envoy's own has to do.
boot_seconds = nil
package.loaded.ffi = nil
package.preload.ffi = function()
  assert(boot_seconds, "no such module")
  local c = {
    clock_gettime = function(_, time)
      time.seconds, time.nanoseconds = math.floor(boot_seconds), boot_seconds % 1 * 1000000000
      return 0
    end,
  }
  return { os = "Linux", cdef = function() end, new = function() return {} end, C = c }
end

-- Envoy's handle, as far as the script uses it: headers, metadata, a clock and the caller's certificate.
local function wrapped(headers)
  return {
    get = function(_, name)
      local found
      for _, each in ipairs(headers) do
        if each[1] == name then found = found and found .. "," .. each[2] or each[2] end
      end
      return found
    end,
    remove = function(_, name)
      for i = #headers, 1, -1 do
        if headers[i][1] == name then table.remove(headers, i) end
      end
    end,
    replace = function(self, name, value)
      self:remove(name)
      table.insert(headers, { name, value })
    end,
  }
end

-- A test may have one of Envoy's functions fail.
local function breakable(object)
  local made = {}
  for name, each in pairs(object) do
    made[name] = function(...)
      assert(broken ~= name, "broken")
      return each(...)
    end
  end
  return made
end

-- Metadata has only what can be a protobuf value.
local function copied(value)
  local kind = type(value)
  assert(kind == "string" or kind == "number" or kind == "boolean" or kind == "table", kind)
  if kind ~= "table" then return value end
  local made = {}
  for name, each in pairs(value) do made[name] = copied(each) end
  return made
end

function handle_of(headers, metadata, now, certificate)
  local dynamic = {
    get = function(_, namespace) return metadata[namespace] and copied(metadata[namespace]) end,
    set = function(_, namespace, name, value)
      metadata[namespace] = metadata[namespace] or {}
      metadata[namespace][name] = copied(value)
    end,
  }
  local tls = certificate and { urlEncodedPemEncodedPeerCertificate = function() return certificate end }
  local stream = {
    dynamicMetadata = function() return dynamic end,
    downstreamSslConnection = function() return tls end,
  }
  stream = breakable(stream)
  local kept = breakable(wrapped(headers))
  return breakable({
    headers = function() return kept end,
    streamInfo = function() return stream end,
    timestamp = function() return now end,
  })
end
