-- After a commit: removes the entry, all leases and this writer's barrier; keeps the barriers of other writers, and the
-- records of writers that are done. If attempts to set this writer's barrier may still arrive, also records that this
-- writer is done, so that begin_write ignores them.
-- KEYS[1]: the hash of the environment. ARGV: writer id; the TTL of that record, 0 for none (ms). Returns 1.
local key = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local new_fields = {}
local last = 0
if redis.call('TYPE', key)['ok'] == 'hash' then
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, deadline = fields[i], tonumber(string.match(fields[i + 1], '^%d+$')) or 0
    local kind = string.sub(name, 1, 4)
    -- Pennon sets no deadline more than 15 s ahead. One more than 60 s ahead was forged, to prevent fills.
    local is_valid = deadline > now and deadline - now <= 60000
    if (kind == '__b:' or kind == '__d:') and name ~= '__b:' .. ARGV[1] and is_valid then
      new_fields[name] = fields[i + 1]
      last = math.max(last, deadline)
    end
  end
end
local done_ttl = tonumber(ARGV[2])
if done_ttl > 0 then
  new_fields['__d:' .. ARGV[1]] = tostring(now + done_ttl)
  last = math.max(last, now + done_ttl)
end
redis.call('DEL', key)
for name, deadline in pairs(new_fields) do redis.call('HSET', key, name, deadline) end
if last > 0 then redis.call('PEXPIRE', key, last - now) end
return 1
