-- Replaces the whole hash, if the lease still stands.
-- KEYS[1] the environment's hash. ARGV: lease id, ttl ms, then field, value, ... with __rev first.
-- Answers 1 when filled, 0 when refused.
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
-- Deletes: the user that reads and fills may not DEL, which is for those who invalidate.
redis.call('PEXPIRE', key, 0)
-- Lua's stack limits unpack to some 8,000 values.
for first = 3, #ARGV, 4000 do
  redis.call('HSET', key, unpack(ARGV, first, math.min(first + 3999, #ARGV)))
  -- After the first part: an error of the script undoes nothing, and no entry may stay without an end.
  if first == 3 then redis.call('PEXPIRE', key, ARGV[2]) end
end
for first = 1, #done, 4000 do
  redis.call('HSET', key, unpack(done, first, math.min(first + 3999, #done)))
end
return 1
