-- Before a commit: removes the entry and all leases, and sets the writer's barrier. If a commit fails, this runs once
-- more, with another writer id.
-- KEYS[1]: the hash of the environment. ARGV: writer id; TTL of the barrier; the writer's clock when it sent
-- the command; the delay after which no barrier is set (all in ms).
-- Returns 1, or 0 if the command arrived too late for a barrier.
local key = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- A delayed attempt of a writer that is already done: a barrier would stay until its TTL expires.
if redis.call('TYPE', key)['ok'] == 'hash' then
  local done = tonumber(redis.call('HGET', key, '__d:' .. ARGV[1]) or 0)
  if done > now then return 1 end
end
local own = '__b:' .. ARGV[1]
local new_fields = {}
local last = now
-- A late command was queued while Redis hung. Its writer has given up, so a barrier would only prevent hits.
local late = now - tonumber(ARGV[3]) > tonumber(ARGV[4])
if not late then
  last = now + tonumber(ARGV[2])
  new_fields[own] = tostring(last)
end
if redis.call('TYPE', key)['ok'] == 'hash' then
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, deadline = fields[i], tonumber(string.match(fields[i + 1], '^%d+$')) or 0
    local kind = string.sub(name, 1, 4)
    -- Pennon sets no deadline more than 15 s ahead. One more than 60 s ahead was forged, to prevent fills.
    local is_valid = deadline > now and deadline - now <= 60000
    -- A late command keeps the barrier that another attempt of the same writer has set.
    if (kind == '__b:' or kind == '__d:') and (late or name ~= own) and is_valid then
      new_fields[name] = fields[i + 1]
      last = math.max(last, deadline)
    end
  end
end
redis.call('DEL', key)
for name, deadline in pairs(new_fields) do redis.call('HSET', key, name, deadline) end
if last > now then redis.call('PEXPIRE', key, last - now) end
return late and 0 or 1
