-- Requests of varied users for wrk. Arguments: method, path, kind ("empty", "offer" or "json"), file of users, first user, uses, apart, body.
-- Each line of the file is one user: address and token. A user comes back after `apart` others, `uses` times in all, and
-- of all requests one in `uses` is by somebody new: where the first has his fifth, the next his fourth, and so on.
local users, heads = {}, {}
local kind, first, uses, apart, before, after
local sent = 0

function init(args)
  local method, path, file = args[1], args[2], args[4]
  kind, first, uses, apart = args[3], tonumber(args[5]), tonumber(args[6]), tonumber(args[7])
  for line in io.lines(file) do
    users[#users + 1] = line
  end
  local content = ""
  if kind ~= "empty" then
    local handle = io.open(args[8], "rb")
    content = handle:read("*a")
    handle:close()
  end
  if kind == "offer" then
    -- Every connection of a browser has another number in its `o=` line, of ten digits here.
    before, after = content:match("^(.-o=%- )%d%d%d%d%d%d%d%d%d%d(.*)$")
  else
    before, after = content, nil
  end
  local media = kind == "offer" and "application/sdp" or "application/json"
  for number, line in ipairs(users) do
    local address, token = line:match("^(%S+) (%S+)$")
    local head = {
      method .. " " .. path .. " HTTP/1.1",
      "host: " .. wrk.host .. ":" .. wrk.port,
      "origin: https://app.bench.example",
      "user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36",
      "accept: */*",
      "x-forwarded-for: " .. address,
      "authorization: Bearer " .. token,
    }
    if kind ~= "empty" then
      head[#head + 1] = "content-type: " .. media
      head[#head + 1] = "content-length: " .. #content
    end
    heads[number] = table.concat(head, "\r\n") .. "\r\n\r\n"
    users[number] = nil
  end
end

function request()
  local ahead = (uses - 1 - sent % uses) * math.floor(apart / uses)
  local user = (first + math.floor(sent / uses) + ahead) % #heads
  sent = sent + 1
  if after then
    return heads[user + 1] .. before .. string.format("%010d", first * 100000 + sent) .. after
  end
  return heads[user + 1] .. before
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "max_ms": %.4f, "refused": %d, "broken": %d, "timed_out": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.status, errors.connect + errors.read + errors.write, errors.timeout
  ))
end
