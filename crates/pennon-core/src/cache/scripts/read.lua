-- Everything an entry holds; or, when there is none, the right to fill it.
-- KEYS[1] the environment's hash. ARGV: lease id, lease ms, head start of a filler ms, reader id.
-- A reader whose reply was lost asks again under another lease id and the same reader id: its own head
-- start does not keep it out. PEXPIRE with 0 deletes: the user that reads may not DEL.
-- Answers {'entry', ttl ms, {field, value, ...}}, {'lease', id}, {'busy'}, {'blocked'} or {'full'}.
local key = KEYS[1]
local kind = redis.call('TYPE', key)['ok']
if kind == 'hash' and redis.call('HEXISTS', key, '__rev') == 1 then
  if redis.call('HEXISTS', key, '__env') == 1 and redis.call('HEXISTS', key, '__inst') == 1 then
    return {'entry', redis.call('PTTL', key), redis.call('HGETALL', key)}
  end
  -- An older version has filled it and has left out what it does not know of.
  redis.pcall('PEXPIRE', key, 0)
  kind = 'none'
end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local standing = 0
if kind == 'hash' then
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name = fields[i]
    local deadline, owner = string.match(fields[i + 1], '^(%d+) ?(.*)$')
    deadline = tonumber(deadline) or 0
    -- Nothing of ours stands for longer than 15 s. A later deadline is somebody else's, who wants no one to fill.
    if deadline <= now or deadline - now > 60000 then
      redis.pcall('HDEL', key, name)
    elseif string.sub(name, 1, 4) == '__b:' then
      return {'blocked'}
    elseif string.sub(name, 1, 4) == '__d:' then
      -- A writer that is done: nothing to wait for.
    elseif name == '__head' then
      if owner ~= ARGV[4] then return {'busy'} end
    else
      standing = standing + 1
    end
  end
elseif kind ~= 'none' then
  -- The string that the service before us kept here, or some other stranger.
  redis.pcall('PEXPIRE', key, 0)
end
-- More leases than this in a few seconds means that fills do not succeed; stop collecting them.
if standing >= 64 then return {'busy'} end

local lease_until = now + tonumber(ARGV[2])
local noted = redis.pcall('HSET', key, '__l:' .. ARGV[1], lease_until, '__head', (now + tonumber(ARGV[3])) .. ' ' .. ARGV[4])
if type(noted) == 'table' and noted['err'] then return {'full'} end
if redis.call('PTTL', key) < tonumber(ARGV[2]) then redis.call('PEXPIRE', key, ARGV[2]) end
return {'lease', ARGV[1]}
