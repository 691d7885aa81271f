-- Before a commit: removes the entry and all leases, and sets the writer's barrier.
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
  new_fields = {own, tostring(last)}
end
if redis.call('TYPE', key)['ok'] == 'hash' then
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, deadline = fields[i], tonumber(fields[i + 1]) or 0
    local kind = string.sub(name, 1, 4)
    if (kind == '__b:' or kind == '__d:') and name ~= own and deadline > now then
      new_fields[#new_fields + 1] = name
      new_fields[#new_fields + 1] = fields[i + 1]
      last = math.max(last, deadline)
    end
  end
end
redis.call('DEL', key)
if #new_fields > 0 then
  redis.call('HSET', key, unpack(new_fields))
  redis.call('PEXPIRE', key, last - now)
end
return late and 0 or 1
