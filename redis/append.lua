-- One flush of a group commit: every request of it is checked and appended, atomically.
-- KEYS: stream, bytes ever appended, bytes ever trimmed, then one idempotency key a request.
-- ARGV: backlog bound in bytes, seconds a key lives, then (fingerprint, rows, block) a request.
-- Returns one verdict a request: 0 stored, 1 stored before, 2 key used with another body,
-- 3 no room in the backlog. Blocks of one call become one stream entry; where nothing is to be
-- stored, nothing is written.
local appended = tonumber(redis.call('GET', KEYS[2]) or '0')
local trimmed = tonumber(redis.call('GET', KEYS[3]) or '0')
local room = tonumber(ARGV[1]) - (appended - trimmed)
local seconds = ARGV[2]
local verdicts, blocks = {}, {}
local rows, bytes = 0, 0
for i = 4, #KEYS do
  local at = 3 + (i - 4) * 3
  local known = redis.call('GET', KEYS[i])
  local size = #ARGV[at + 2]
  if known then
    verdicts[#verdicts + 1] = known == ARGV[at] and 1 or 2
  elseif bytes + size > room then
    verdicts[#verdicts + 1] = 3
  else
    redis.call('SET', KEYS[i], ARGV[at], 'EX', seconds)
    blocks[#blocks + 1] = ARGV[at + 2]
    rows = rows + tonumber(ARGV[at + 1])
    bytes = bytes + size
    verdicts[#verdicts + 1] = 0
  end
end
if bytes > 0 then
  local total = redis.call('INCRBY', KEYS[2], bytes)
  redis.call('XADD', KEYS[1], '*', 'n', rows, 'c', total, 'b', table.concat(blocks))
end
return verdicts
