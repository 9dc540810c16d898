-- One flush of a group commit: every request of it is checked and appended, atomically.
-- KEYS: stream, bytes ever appended, bytes ever trimmed, rows ever appended, what was seen. The last one is
-- shared by the usual and the late stream of a kind and shard, so a post is stored in one of them only.
-- ARGV: backlog bound in bytes, seconds that a key is kept at least, field for the blocks, the blocks of
-- all requests joined, a line `idempotency key SP fingerprint` a request, a line `rows SP bytes of its
-- block` a request, rows of all requests.
-- Returns nothing where all were stored, which is nearly always; else one verdict a request: 0 stored,
-- 1 stored before, 2 key used with another body, 3 no room in the backlog. Blocks of one call become one
-- stream entry; where nothing is to be stored, nothing of the requests is written.
--
-- Idempotency keys with their fingerprints are fields of hashes, <seen>:<number>, so that a flush costs
-- a few commands and not two a request, and each key half of the memory. A hash is written to for half
-- of the seconds, and looked at until it is the fourth newest: a key is kept for one to one and a half
-- times the seconds. The numbers only go up, whatever the clock does.
local secondsHalf = math.ceil(ARGV[2] / 2)
local now = tonumber(redis.call('TIME')[1])
local at = redis.call('HMGET', KEYS[5], 'number', 'since')
local number, since = tonumber(at[1] or 1), tonumber(at[2] or now + 1)
if now < since or now - since >= secondsHalf then
  if now > since then
    number = number + 1
    redis.call('UNLINK', KEYS[5] .. ':' .. number - 3)
  end
  redis.call('HSET', KEYS[5], 'number', number, 'since', now)
end
local newest = KEYS[5] .. ':' .. number

local keys, fields, gathered = {}, {}, {}
local areNew = true
for key, fingerprint in string.gmatch(ARGV[5], '(%S+) ([^\n]*)\n') do
  keys[#keys + 1] = key
  fields[#fields + 1] = key
  fields[#fields + 1] = fingerprint
  areNew = areNew and not gathered[key]
  gathered[key] = true
end
local found = {}
for age = 0, 2 do
  local fingerprints = redis.call('HMGET', KEYS[5] .. ':' .. number - age, unpack(keys))
  for i = 1, #keys do
    if fingerprints[i] then
      found[keys[i]] = fingerprints[i]
      areNew = false
    end
  end
end

local room = tonumber(ARGV[1])
  - ((redis.call('GET', KEYS[2]) or 0) - (redis.call('GET', KEYS[3]) or 0))
local block, rows, verdicts = ARGV[4], ARGV[7], {}
if not areNew or #block > room then
  local stored, blocks, offset, bytes = {}, {}, 0, 0
  rows = 0
  for of, size in string.gmatch(ARGV[6], '(%d+) (%d+)\n') do
    local i = #verdicts + 1
    local key, fingerprint = keys[i], fields[i * 2]
    if found[key] then
      verdicts[i] = found[key] == fingerprint and 1 or 2
    elseif bytes + size > room then
      verdicts[i] = 3
    else
      verdicts[i] = 0
      found[key] = fingerprint
      stored[#stored + 1] = key
      stored[#stored + 1] = fingerprint
      blocks[#blocks + 1] = string.sub(ARGV[4], offset + 1, offset + size)
      bytes = bytes + size
      rows = rows + of
    end
    offset = offset + size
  end
  if #stored == 0 then
    return verdicts
  end
  fields, block = stored, table.concat(blocks)
end
redis.call('HSET', newest, unpack(fields))
-- It has no expiry yet, or less than what its youngest key is owed, as the clock has been put back.
if redis.call('TTL', newest) < secondsHalf * 2 then
  redis.call('EXPIRE', newest, secondsHalf * 3)
end
local total = redis.call('INCRBY', KEYS[2], #block)
redis.call('INCRBY', KEYS[4], rows)
redis.call('XADD', KEYS[1], '*', 'n', rows, 'c', total, ARGV[3], block)
return verdicts
