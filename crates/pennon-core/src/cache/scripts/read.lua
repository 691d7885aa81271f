-- Reads a whole entry or, if there is none, takes a lease to fill it.
-- KEYS[1]: the hash of the environment. ARGV: lease id; TTL of the lease (ms); fill grace period (ms); reader id.
-- A reader that lost the reply asks again with a new lease id and the same reader id, so that it does not wait
-- for its own fill grace period.
-- Returns {'entry', ttl ms, {field, value, ...}}, {'lease', id}, {'busy'}, {'blocked'} or {'full'}.
-- Deletes with PEXPIRE, because the Redis user of readers has no permission for DEL.
local key = KEYS[1]
local kind = redis.call('TYPE', key)['ok']
if kind == 'hash' and redis.call('HEXISTS', key, '__rev') == 1 then
  return {'entry', redis.call('PTTL', key), redis.call('HGETALL', key)}
end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local leases = 0
if kind == 'hash' then
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name = fields[i]
    local deadline, owner = string.match(fields[i + 1], '^(%d+) ?(.*)$')
    deadline = tonumber(deadline) or 0
    -- Pennon sets no deadline more than 15 s ahead. One more than 60 s ahead was forged, to prevent fills.
    if deadline <= now or deadline - now > 60000 then
      redis.pcall('HDEL', key, name)
    elseif string.sub(name, 1, 4) == '__b:' then
      return {'blocked'}
    elseif string.sub(name, 1, 4) == '__d:' then
      -- The writer is done and prevents no fill.
    elseif name == '__grace' then
      if owner ~= ARGV[4] then return {'busy'} end
    else
      leases = leases + 1
    end
  end
elseif kind ~= 'none' then
  -- Not a hash: an existing service may keep a string under this key.
  redis.pcall('PEXPIRE', key, 0)
end
-- So many leases within a few seconds mean that fills fail. A limit keeps the hash small.
if leases >= 64 then return {'busy'} end

local lease_until = now + tonumber(ARGV[2])
local stored = redis.pcall('HSET', key, '__l:' .. ARGV[1], lease_until, '__grace', (now + tonumber(ARGV[3])) .. ' ' .. ARGV[4])
if type(stored) == 'table' and stored['err'] then return {'full'} end
if redis.call('PTTL', key) < tonumber(ARGV[2]) then redis.call('PEXPIRE', key, ARGV[2]) end
return {'lease', ARGV[1]}
