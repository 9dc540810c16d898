-- One flush of a group commit: every request of it is checked and appended, atomically.
-- KEYS: stream, bytes ever appended, bytes ever trimmed, rows ever appended, then one idempotency key
-- a request.
-- ARGV: backlog bound in bytes, seconds a key lives, field for the blocks, the blocks of all requests
-- joined, then (fingerprint, rows, bytes of its block) a request.
-- Returns one verdict a request: 0 stored, 1 stored before, 2 key used with another body,
-- 3 no room in the backlog. Blocks of one call become one stream entry; where nothing is to be
-- stored, nothing is written.
local appended = tonumber(redis.call('GET', KEYS[2]) or '0')
local trimmed = tonumber(redis.call('GET', KEYS[3]) or '0')
local room = tonumber(ARGV[1]) - (appended - trimmed)
local seconds = ARGV[2]
local joined = ARGV[4]
local verdicts, ranges = {}, {}
local rows, bytes, offset = 0, 0, 0
for i = 5, #KEYS do
  local at = 5 + (i - 5) * 3
  local known = redis.call('GET', KEYS[i])
  local size = tonumber(ARGV[at + 2])
  if known then
    verdicts[#verdicts + 1] = known == ARGV[at] and 1 or 2
  elseif bytes + size > room then
    verdicts[#verdicts + 1] = 3
  else
    redis.call('SET', KEYS[i], ARGV[at], 'EX', seconds)
    ranges[#ranges + 1] = { offset + 1, offset + size }
    rows = rows + tonumber(ARGV[at + 1])
    bytes = bytes + size
    verdicts[#verdicts + 1] = 0
  end
  offset = offset + size
end
if bytes > 0 then
  -- Nearly always every request is stored: then the blocks are taken as they came, uncopied.
  local block = joined
  if bytes < #joined then
    local blocks = {}
    for i, range in ipairs(ranges) do
      blocks[i] = string.sub(joined, range[1], range[2])
    end
    block = table.concat(blocks)
  end
  local total = redis.call('INCRBY', KEYS[2], bytes)
  redis.call('INCRBY', KEYS[4], rows)
  redis.call('XADD', KEYS[1], '*', 'n', rows, 'c', total, ARGV[3], block)
end
return verdicts
