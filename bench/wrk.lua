-- What wrk sends: the lines of the file LOAD, in turn. A line is method, path, cookie, content type
-- and body, with tabs between them.
--
-- With ROLLING, each response's Set-Cookie takes the place of a cookie that was sent, as in browsers.
-- With RATE, so many requests a second are sent; wrk's timers count whole milliseconds.

local lines, texts = {}, {}
local sent, received = 0, 0
local rate = tonumber(os.getenv("RATE"))

local function format(line)
  local headers = {}
  if line.cookie ~= "" then headers["Cookie"] = line.cookie end
  if line.type ~= "" then headers["Content-Type"] = line.type end
  return wrk.format(line.method, line.path, headers, line.body ~= "" and line.body or nil)
end

function init()
  for text in io.lines(os.getenv("LOAD")) do
    local method, path, cookie, type, body = text:match("^(.-)\t(.-)\t(.-)\t(.-)\t(.*)$")
    local line = { method = method, path = path, cookie = cookie, type = type, body = body }
    texts[#texts + 1] = format(line)
    -- A million lines would not fit into LuaJIT's memory beside their texts.
    if os.getenv("ROLLING") then lines[#texts] = line end
  end
end

function request()
  sent = sent % #texts + 1
  return texts[sent]
end

if os.getenv("ROLLING") then
  function response(_, headers)
    local cookie = headers["Set-Cookie"] or headers["set-cookie"]
    if not cookie then return end
    received = received % #texts + 1
    lines[received].cookie = cookie:match("^[^;]*")
    texts[received] = format(lines[received])
  end
end

if rate then
  local ffi = require("ffi")
  ffi.cdef("typedef struct { long s; long us; } time; int gettimeofday(time *now, void *zone);")
  local now = ffi.new("time")
  local due = 0

  function delay()
    ffi.C.gettimeofday(now, nil)
    local seconds = tonumber(now.s) + tonumber(now.us) / 1e6
    due = math.max(due, seconds) + 1 / rate
    return math.floor((due - seconds) * 1000)
  end
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    'RESULT {"requests":%d,"microseconds":%d,"refused":%d,"failed":%d,"p99":%d,"longest":%d}\n',
    summary.requests, summary.duration, errors.status, failed, latency:percentile(99), latency.max
  ))
end
