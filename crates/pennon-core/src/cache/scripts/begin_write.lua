-- Before a commit: removes the entry and every lease, and prevents fills until the barrier is removed.
-- KEYS[1] the environment's hash. ARGV: writer id, barrier ms, the writer's clock when it sent this, how
-- much later this is still of use, both ms. Answers 1, or 0 when it comes too late for a barrier.
local key = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- An attempt that arrives after its writer has finished has nothing to do.
if redis.call('TYPE', key)['ok'] == 'hash' then
  local done = tonumber(redis.call('HGET', key, '__d:' .. ARGV[1]) or 0)
  if done > now then return 1 end
end
local own = '__b:' .. ARGV[1]
local barriers = {}
local last = now
-- A late one was queued in a Redis that hung. Its writer has given up, and a barrier would only cost hits.
local late = now - tonumber(ARGV[3]) > tonumber(ARGV[4])
if not late then
  last = now + tonumber(ARGV[2])
  barriers = {own, tostring(last)}
end
if redis.call('TYPE', key)['ok'] == 'hash' then
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, deadline = fields[i], tonumber(fields[i + 1]) or 0
    local kind = string.sub(name, 1, 4)
    if (kind == '__b:' or kind == '__d:') and name ~= own and deadline > now then
      barriers[#barriers + 1] = name
      barriers[#barriers + 1] = fields[i + 1]
      last = math.max(last, deadline)
    end
  end
end
redis.call('DEL', key)
if #barriers > 0 then
  redis.call('HSET', key, unpack(barriers))
  redis.call('PEXPIRE', key, last - now)
end
return late and 0 or 1
