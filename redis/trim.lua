-- Drops the stream entries of settled segments, and writes their bytes off the backlog. Safe to repeat.
-- KEYS: stream, bytes ever appended, bytes ever trimmed.
-- ARGV: first id to keep; bytes ever appended up to and including the last settled stream entry.
local appended = tonumber(redis.call('GET', KEYS[2]) or '0')
local trimmed = tonumber(redis.call('GET', KEYS[3]) or '0')
local settled = math.min(tonumber(ARGV[2]), appended)
if settled > trimmed then
  redis.call('SET', KEYS[3], string.format('%.0f', settled))
end
return redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[1])
