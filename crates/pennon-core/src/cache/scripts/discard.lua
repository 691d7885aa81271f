-- Removes a wrong entry and its leases, and keeps the barriers of writers. Does nothing without an entry.
-- KEYS[1]: the hash of the environment. ARGV: the wrong revision, or an empty text for any; the TTL of a
-- barrier (ms).
-- Returns 1 if the entry was removed, otherwise 0.
-- Deletes with PEXPIRE, because the Redis user of readers has no permission for DEL.
local key = KEYS[1]
if redis.call('TYPE', key)['ok'] ~= 'hash' then return 0 end
local revision = redis.call('HGET', key, '__rev')
if not revision or (ARGV[1] ~= '' and revision ~= ARGV[1]) then return 0 end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local new_fields = {}
local last = 0
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local name, deadline = fields[i], tonumber(fields[i + 1]) or 0
  local kind = string.sub(name, 1, 4)
  -- A barrier with a longer TTL than writers set was forged. Keeping it would prevent fills.
  if (kind == '__b:' or kind == '__d:') and deadline > now and deadline - now <= tonumber(ARGV[2]) then
    new_fields[#new_fields + 1] = name
    new_fields[#new_fields + 1] = fields[i + 1]
    last = math.max(last, deadline)
  end
end
redis.call('PEXPIRE', key, 0)
if #new_fields > 0 then
  redis.call('HSET', key, unpack(new_fields))
  redis.call('PEXPIRE', key, last - now)
end
return 1
