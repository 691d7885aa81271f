-- Before a commit: drops the entry and every lease, and lets nobody fill while the mark stands.
-- KEYS[1] the environment's hash. ARGV: writer id, mark ms. Answers 1.
local key = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- An attempt that was taken for lost and arrives after all, when its writer is done: nothing to do.
if redis.call('TYPE', key)['ok'] == 'hash' then
  local done = tonumber(redis.call('HGET', key, '__d:' .. ARGV[1]) or 0)
  if done > now then return 1 end
end
local marks = {'__b:' .. ARGV[1], tostring(now + tonumber(ARGV[2]))}
local last = now + tonumber(ARGV[2])
if redis.call('TYPE', key)['ok'] == 'hash' then
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, deadline = fields[i], tonumber(fields[i + 1]) or 0
    local kind = string.sub(name, 1, 4)
    if (kind == '__b:' or kind == '__d:') and name ~= marks[1] and deadline > now then
      marks[#marks + 1] = name
      marks[#marks + 1] = fields[i + 1]
      last = math.max(last, deadline)
    end
  end
end
redis.call('DEL', key)
redis.call('HSET', key, unpack(marks))
redis.call('PEXPIRE', key, last - now)
return 1
