-- Removes a wrong entry and its leases. Keeps the barriers of writers, and the records of writers that are done. Does
-- nothing without an entry.
-- KEYS[1]: the hash of the environment. ARGV: the wrong revision, or an empty text for any.
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
  local name, deadline = fields[i], tonumber(string.match(fields[i + 1], '^%d+$')) or 0
  local kind = string.sub(name, 1, 4)
  -- Pennon sets no deadline more than 15 s ahead. One more than 60 s ahead was forged, to prevent fills.
  local is_valid = deadline > now and deadline - now <= 60000
  if (kind == '__b:' or kind == '__d:') and is_valid then
    new_fields[name] = fields[i + 1]
    last = math.max(last, deadline)
  end
end
redis.call('PEXPIRE', key, 0)
for name, deadline in pairs(new_fields) do redis.call('HSET', key, name, deadline) end
if last > 0 then redis.call('PEXPIRE', key, last - now) end
return 1
