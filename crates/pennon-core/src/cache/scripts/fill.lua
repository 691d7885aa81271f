-- Replaces the whole hash, except the records of writers that are done, if the lease is still valid.
-- KEYS[1]: the hash of the environment. ARGV: lease id; TTL of the entry (ms); then field, value, …, __rev first.
-- Returns 1 if it has filled, otherwise 0.
local key = KEYS[1]
if redis.call('TYPE', key)['ok'] ~= 'hash' then return 0 end
local deadline = tonumber(redis.call('HGET', key, '__l:' .. ARGV[1]) or 0)
local clock = redis.call('TIME')
if deadline <= clock[1] * 1000 + math.floor(clock[2] / 1000) then return 0 end

local done = {}
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 4) == '__d:' then
    done[#done + 1] = fields[i]
    done[#done + 1] = fields[i + 1]
  end
end
-- Deletes with PEXPIRE, because the Redis user of readers has no permission for DEL.
redis.call('PEXPIRE', key, 0)
-- Lua's stack limits unpack to about 8,000 values.
for first = 3, #ARGV, 4000 do
  redis.call('HSET', key, unpack(ARGV, first, math.min(first + 3999, #ARGV)))
  -- Set with the first part: Redis does not roll back a script that fails, and no entry may be without a TTL.
  if first == 3 then redis.call('PEXPIRE', key, ARGV[2]) end
end
for first = 1, #done, 4000 do
  redis.call('HSET', key, unpack(done, first, math.min(first + 3999, #done)))
end
return 1
