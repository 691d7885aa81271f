-- Drops an entry that is older than the database is known to be. Marks and leases stay when there
-- is no entry, since then there is nothing to drop.
-- KEYS[1] the environment's hash. ARGV: the revision that is wrong. Answers 1 when dropped.
local key = KEYS[1]
if redis.call('TYPE', key)['ok'] == 'hash' and redis.call('HGET', key, '__rev') == ARGV[1] then
  return redis.call('DEL', key)
end
return 0
