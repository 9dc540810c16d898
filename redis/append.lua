-- One flush of a group commit: recognises the posts of it that were stored before and appends the
-- others, atomically.
--
-- KEYS: stream, bytes ever appended, bytes ever trimmed, rows ever appended; the hash that says which
-- hashes hold the idempotency keys; the first part of the names of the sets of ids; and that of the
-- names of the hashes of streams that nodes number. The usual and the late stream of a kind and shard
-- share the last three keys, so only one of the two stores a post. All shards share the last two.
--
-- ARGV: backlog bound in bytes; seconds that an id is kept at least; seconds for which one set takes
-- ids; seconds that an idempotency key is kept at least; most gaps of a numbered stream; most numbered
-- streams of a node; field for the blocks; the blocks of all posts joined; rows of all posts; and a line
-- for each post.
--
-- A line: way, set, id, rows, bytes of its block, and for the ways k and n also seconds of its oldest
-- row, name and number. The set is `<node><letter of the kind>:<which hours>`. If the rows have no
-- times, the hours and the seconds are `-`. The way says how the post is recognised:
--   b  by its body: the id is the fingerprint of the body.
--   k  by its idempotency key: the name is the fingerprint of the key, the number that of the body,
--      and the id that of both.
--   n  by its number: the name is the stream, and the id the fingerprint of stream, number and body.
--   f  by its id, only for as long as Core itself may repeat this flush.
--
-- Returns an empty list if all posts were stored, which is nearly always. Otherwise one verdict for
-- each post: 0 stored, 1 stored before, 2 key or number used with another body, 3 no room in the
-- backlog, 4 too many gaps, 5 too many streams. The blocks that are stored become one stream entry. If
-- none is stored, the script writes nothing of the posts.
local call = redis.call
local windowSeconds, setSeconds = tonumber(ARGV[2]), tonumber(ARGV[3])
local keySeconds, gapsMax, streamsMax = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local now = tonumber(call('TIME')[1])
local room = tonumber(ARGV[1]) - ((call('GET', KEYS[2]) or 0) - (call('GET', KEYS[3]) or 0))

-- Ids lie in sets: one for a node, a kind and some hours. If the rows of a post have times, the oldest
-- one says which hours. A repeat has the same rows, so one set can have its id, whenever it comes. If
-- they have none, it is the time of the post, and a repeat may be in an earlier set. Redis keeps small
-- sets of numbers in eight bytes a number.
local setsMax = math.ceil(windowSeconds / setSeconds) + 1
local setPrefix = KEYS[6] .. ':'

local function setOf(set, back)
  if string.sub(set, -1) ~= '-' then return setPrefix .. set end
  local hours = math.floor(now / setSeconds) - back
  return setPrefix .. string.sub(set, 1, -2) .. string.format('%d', hours)
end

local function isKnown(set, id)
  local sets = string.sub(set, -1) == '-' and setsMax or 1
  for back = 0, sets - 1 do
    if call('SISMEMBER', setOf(set, back), id) == 1 then return true end
  end
  return false
end

-- Every id of a set is kept for at least these seconds, as a rule the window. A new set has no expiry,
-- which is -1.
local function add(name, id, seconds)
  call('SADD', name, id)
  if call('TTL', name) < seconds then
    call('EXPIRE', name, seconds + math.min(setSeconds, windowSeconds))
  end
end

-- What is known is not written again, so that a repeat is recognised even if Redis has no memory left.
local function byBody(set, id, size)
  local name = setOf(set, 0)
  if call('SISMEMBER', name, id) == 1 then return 1 end
  if size > room then return 3 end
  add(name, id, windowSeconds)
  return 0
end

-- Idempotency keys are fields of hashes, <seen>:<number>, and the fingerprints of bodies are the
-- values. The script writes to a hash for half of the seconds, and looks at the newest three: a key is
-- kept for one to one and a half times the seconds. The numbers only go up, whatever the clock does.
local newestSeen
local function seenNumber()
  if newestSeen then return newestSeen end
  local secondsHalf = math.ceil(keySeconds / 2)
  local current = call('HMGET', KEYS[5], 'number', 'since')
  local number, since = tonumber(current[1] or 1), tonumber(current[2] or now + 1)
  if now < since or now - since >= secondsHalf then
    if now > since then
      number = number + 1
      call('UNLINK', KEYS[5] .. ':' .. number - 3)
    end
    call('HSET', KEYS[5], 'number', number, 'since', now)
  end
  newestSeen = number
  return number
end

local function byKey(set, id, size, rest)
  local name, body = string.match(rest, '^ %S+ (%S+) (%S+)$')
  local key = string.match(set, '^%d+') .. ':' .. name
  for back = 0, 2 do
    local known = call('HGET', KEYS[5] .. ':' .. seenNumber() - back, key)
    if known then return known == body and 1 or 2 end
  end
  if isKnown(set, id) then return 1 end
  if size > room then return 3 end
  add(setOf(set, 0), id, windowSeconds)
  local newest, secondsHalf = KEYS[5] .. ':' .. seenNumber(), math.ceil(keySeconds / 2)
  call('HSET', newest, key, body)
  -- If the clock was put back while the script wrote to a hash, its expiry is too short.
  if call('TTL', newest) < secondsHalf * 2 then
    call('EXPIRE', newest, secondsHalf * 3)
  end
  return 0
end

-- What came of a stream is never forgotten: `120 1764570000 80 1764613200 110 7-7,30-41`. The first
-- number is the greatest one. Then come two times, each with the greatest number before it. The ranges
-- have not come, and are in ascending order.
local function streamOf(state)
  if not state then return { greatest = 0, since = { now, now }, before = { 0, 0 }, gaps = '' } end
  local greatest, since1, before1, since2, before2, gaps =
    string.match(state, '^(%d+) (%d+) (%d+) (%d+) (%d+) ?(.*)$')
  return {
    greatest = tonumber(greatest),
    since = { tonumber(since1), tonumber(since2) },
    before = { tonumber(before1), tonumber(before2) },
    gaps = gaps,
  }
end

-- Says the gaps once the number has come, and how many. Says nothing if it has come before.
local function gapsAfter(stream, number)
  local gaps, isNew = {}, number > stream.greatest
  local function gap(first, last)
    if first <= last then gaps[#gaps + 1] = string.format('%.0f-%.0f', first, last) end
  end
  for first, last in string.gmatch(stream.gaps, '(%d+)-(%d+)') do
    first, last = tonumber(first), tonumber(last)
    if first <= number and number <= last then
      isNew = true
      gap(first, number - 1)
      gap(number + 1, last)
    else
      gap(first, last)
    end
  end
  if not isNew then return nil end
  gap(stream.greatest + 1, number - 1)
  return table.concat(gaps, ','), #gaps
end

-- Half of the window lies between the two times at least.
local function stateAfter(stream, number, gaps)
  local since, before = stream.since, stream.before
  if now - since[2] >= windowSeconds / 2 then
    since, before = { since[2], now }, { before[2], stream.greatest }
  end
  local text = string.format(
    '%.0f %d %.0f %d %.0f',
    math.max(stream.greatest, number), since[1], before[1], since[2], before[2]
  )
  return gaps == '' and text or text .. ' ' .. gaps
end

-- Whether the id of a post with this number is kept, if such a post was stored. Numbers above the
-- greatest of a time within the window were stored after that time. And byNumber keeps the id until all
-- rows of the post are older than the window.
local function isIdKept(stream, number, oldest)
  if oldest and oldest > now - windowSeconds then return true end
  for i = 1, 2 do
    if now - stream.since[i] <= windowSeconds then return number > stream.before[i] end
  end
  return false
end

local function byNumber(set, id, size, rest)
  local oldest, name, number = string.match(rest, '^ (%S+) (%S+) (%d+)$')
  number = tonumber(number)
  local hash = KEYS[7] .. ':' .. string.match(set, '^%d+')
  local state = call('HGET', hash, name)
  local stream = streamOf(state)
  local gaps, gapsCount = gapsAfter(stream, number)
  if not gaps then
    -- If the id would be kept and is not known, the number was used with another body: the node counts
    -- again, for instance because its disk was restored.
    return (isKnown(set, id) or not isIdKept(stream, number, tonumber(oldest))) and 1 or 2
  end
  if gapsCount > gapsMax then return 4 end
  if not state and call('HLEN', hash) >= streamsMax then return 5 end
  if size > room then return 3 end
  -- The clock of a node may be ahead, by a day at most.
  local aheadSeconds = math.max(0, (tonumber(oldest) or now) - now)
  add(setOf(set, 0), id, windowSeconds + aheadSeconds)
  call('HSET', hash, name, stateAfter(stream, number, gaps))
  return 0
end

-- Core repeats a flush for a few seconds.
local function byFlush(_, id, size)
  local key = setPrefix .. 'flush:' .. id
  if call('EXISTS', key) == 1 then return 1 end
  if size > room then return 3 end
  call('SET', key, '', 'EX', 60)
  return 0
end

local ways = { b = byBody, k = byKey, n = byNumber, f = byFlush }
local verdicts, rows, areAllStored = {}, 0, true
for way, set, id, postRows, size, rest in string.gmatch(
  ARGV[10], '(%a) (%S+) (%S+) (%d+) (%d+)([^\n]*)\n'
) do
  size = tonumber(size)
  local verdict = ways[way](set, id, size, rest)
  verdicts[#verdicts + 1] = verdict
  if verdict == 0 then
    rows = rows + postRows
    room = room - size
  else
    areAllStored = false
  end
end

local block = ARGV[8]
if not areAllStored then
  local blocks, offset, i = {}, 0, 0
  for size in string.gmatch(ARGV[10], '%a %S+ %S+ %d+ (%d+)[^\n]*\n') do
    i = i + 1
    if verdicts[i] == 0 then blocks[#blocks + 1] = string.sub(block, offset + 1, offset + size) end
    offset = offset + size
  end
  block = table.concat(blocks)
end
if rows > 0 then
  local total = call('INCRBY', KEYS[2], #block)
  call('INCRBY', KEYS[4], rows)
  call('XADD', KEYS[1], '*', 'n', rows, 'c', total, ARGV[7], block)
end
return areAllStored and {} or verdicts
