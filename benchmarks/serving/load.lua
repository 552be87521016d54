-- What wrk sends, told by the arguments method, path and, for a PATCH, the first key, how many keys, and a word.
-- Every PATCH goes to the next key and sets a value that was never there before.

local threads, number = {}, 0
local method, path, first, keys, word, fixed
others = 0 -- answers that are not 2xx; no local, so that the end can read it

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  method, path, first, keys, word = unpack(arguments)
  if method == "PATCH" then
    wrk.headers["Content-Type"] = "application/json"
    wrk.headers["X-Change-Rationale"] = "User request"
  else
    fixed = wrk.format(method, path)
  end
end

function request()
  if fixed then
    return fixed
  end
  number = number + 1
  local body = string.format('{"name": "%s %d"}', word, number)
  return wrk.format(method, path .. (first + number % keys), nil, body)
end

function response(status)
  if status < 200 or status > 299 then
    others = others + 1
  end
end

function done(summary, latency)
  local refused = 0
  for _, thread in ipairs(threads) do
    refused = refused + thread:get("others")
  end
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "refused": %d, "failed": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), refused,
    errors.connect + errors.read + errors.write + errors.timeout
  ))
end
