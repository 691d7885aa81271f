-- After a commit, or a failed one whose barrier is not confirmed: removes the entry, all leases and this writer's
-- barrier; keeps the barriers of other writers, and the records of writers that are done. If attempts to set this
-- writer's barrier may still arrive, also records that this writer is done, so that begin_write ignores them.
-- KEYS[1]: the hash of the environment. ARGV: writer id; the TTL of that record, 0 for none (ms). Returns 1.
local key = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local new_fields = {}
local last = 0
if redis.call('TYPE', key)['ok'] == 'hash' then
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, deadline = fields[i], tonumber(fields[i + 1]) or 0
    local kind = string.sub(name, 1, 4)
    if (kind == '__b:' or kind == '__d:') and name ~= '__b:' .. ARGV[1] and deadline > now then
      new_fields[#new_fields + 1] = name
      new_fields[#new_fields + 1] = fields[i + 1]
      last = math.max(last, deadline)
    end
  end
end
local done_ttl = tonumber(ARGV[2])
if done_ttl > 0 then
  new_fields[#new_fields + 1] = '__d:' .. ARGV[1]
  new_fields[#new_fields + 1] = tostring(now + done_ttl)
  last = math.max(last, now + done_ttl)
end
redis.call('DEL', key)
if #new_fields > 0 then
  redis.call('HSET', key, unpack(new_fields))
  redis.call('PEXPIRE', key, last - now)
end
return 1
