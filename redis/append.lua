-- One flush of a group commit: checks every post of it and appends the new ones, atomically.
--
-- KEYS: stream, bytes ever appended, bytes ever trimmed, rows ever appended, and the hash that says
-- which hashes hold the idempotency keys. The usual and the late stream of a kind and shard share
-- that last key, so only one of the two stores a post.
--
-- ARGV: backlog bound in bytes; seconds that an idempotency key is kept at least; field for the
-- blocks; the blocks of all posts joined; a line `idempotency key SP fingerprint` for each post; a
-- line `rows SP bytes of its block` for each post; rows of all posts.
--
-- Returns an empty list if all posts were stored, which is nearly always. Otherwise one verdict for
-- each post: 0 stored, 1 stored before, 2 key used with another body, 3 no room in the backlog. The
-- blocks that are stored become one stream entry. If none is stored, the script writes nothing of the
-- posts.
--
-- Idempotency keys are fields of hashes, <seen>:<number>, and their fingerprints are the values. So a
-- flush costs a few commands instead of two for each post, and a key takes half of the memory. The
-- script writes to a hash for half of the seconds, and looks at the newest three: a key is kept for
-- one to one and a half times the seconds. The numbers only go up, whatever the clock does.
local secondsHalf = math.ceil(ARGV[2] / 2)
local now = tonumber(redis.call('TIME')[1])
local current = redis.call('HMGET', KEYS[5], 'number', 'since')
local number, since = tonumber(current[1] or 1), tonumber(current[2] or now + 1)
if now < since or now - since >= secondsHalf then
  if now > since then
    number = number + 1
    redis.call('UNLINK', KEYS[5] .. ':' .. number - 3)
  end
  redis.call('HSET', KEYS[5], 'number', number, 'since', now)
end
local newest = KEYS[5] .. ':' .. number

local keys, fields, gathered = {}, {}, {}
local allNew = true
for key, fingerprint in string.gmatch(ARGV[5], '(%S+) ([^\n]*)\n') do
  keys[#keys + 1] = key
  fields[#fields + 1] = key
  fields[#fields + 1] = fingerprint
  allNew = allNew and not gathered[key]
  gathered[key] = true
end
local found = {}
for back = 0, 2 do
  local fingerprints = redis.call('HMGET', KEYS[5] .. ':' .. number - back, unpack(keys))
  for i = 1, #keys do
    if fingerprints[i] then
      found[keys[i]] = fingerprints[i]
      allNew = false
    end
  end
end

local room = tonumber(ARGV[1])
  - ((redis.call('GET', KEYS[2]) or 0) - (redis.call('GET', KEYS[3]) or 0))
local block, rows, verdicts = ARGV[4], ARGV[7], {}
if not allNew or #block > room then
  local stored, blocks, offset, bytes = {}, {}, 0, 0
  rows = 0
  for postRows, size in string.gmatch(ARGV[6], '(%d+) (%d+)\n') do
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
      rows = rows + postRows
    end
    offset = offset + size
  end
  if #stored == 0 then
    return verdicts
  end
  fields, block = stored, table.concat(blocks)
end
redis.call('HSET', newest, unpack(fields))
-- A new hash has no expiry. If the clock was put back while the script wrote to a hash, its expiry is
-- too short for its youngest key.
if redis.call('TTL', newest) < secondsHalf * 2 then
  redis.call('EXPIRE', newest, secondsHalf * 3)
end
local total = redis.call('INCRBY', KEYS[2], #block)
redis.call('INCRBY', KEYS[4], rows)
redis.call('XADD', KEYS[1], '*', 'n', rows, 'c', total, ARGV[3], block)
return verdicts
