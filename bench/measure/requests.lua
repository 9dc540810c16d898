-- The part of wrk.ts that runs in wrk. It reads the requests from a file once, and then changes them in
-- place so that no body comes twice: it writes the key of another node, random digits in every entry, and
-- the request's number in the first entry. A new Lua string of 65 KB a request would be hashed, kept and
-- collected, and wrk copies what it is given anyway. The changed bytes no longer match the strings' hashes.
-- That does no harm, since nothing else in this program uses these strings.
local ffi = require('ffi')
local bit = require('bit')
ffi.cdef [[
typedef struct { long seconds; long nanoseconds; } bench_time;
int clock_gettime(int clock, bench_time *out);
]]

local plan = dofile(os.getenv('CORE_BENCH_PLAN'))
local requests, pointers = {}, {}
local keys, keyLength, keyCount, keyAt = nil, plan.keyLength, plan.keyCount, plan.keyAt
local entries, firstAt, stride = plan.entries, plan.firstAt, plan.stride
local fourA, fourB, sixtyA, sixtyB = plan.fourA, plan.fourB, plan.sixtyA, plan.sixtyB
local sent = 0
local state = plan.seed

-- The bytes of four digits, and of two, as one integer each.
local four = ffi.new('uint32_t[10000]')
local two = ffi.new('uint16_t[60]')

local function digits(text)
  local value = 0
  for index = #text, 1, -1 do value = value * 256 + text:byte(index) end
  return value
end

function init()
  for number = 0, 9999 do four[number] = digits(string.format('%04d', number)) end
  for number = 0, 59 do two[number] = digits(string.format('%02d', number)) end
  local file = assert(io.open(plan.requests, 'rb'))
  for index = 1, plan.count do
    requests[index] = assert(file:read(plan.length))
    pointers[index] = ffi.cast('uint8_t *', requests[index])
  end
  file:close()
  if keyCount > 0 then
    local text = assert(io.open(plan.keys, 'rb')):read('*a')
    keys = ffi.new('uint8_t[?]', #text)
    ffi.copy(keys, text, #text)
  end
end

-- xorshift32
local function random()
  state = bit.bxor(state, bit.lshift(state, 13))
  state = bit.bxor(state, bit.rshift(state, 17))
  state = bit.bxor(state, bit.lshift(state, 5))
  return state
end

local function change(request)
  local minute, second = two[bit.band(random(), 0x7fffffff) % 60], two[bit.band(random(), 0x7fffffff) % 60]
  local entry = request + firstAt
  for _ = 1, entries do
    local value = random()
    ffi.cast('uint32_t *', entry + fourA)[0] = four[bit.band(value, 8191)]
    ffi.cast('uint32_t *', entry + fourB)[0] = four[bit.band(bit.rshift(value, 13), 8191)]
    if sixtyA >= 0 then
      ffi.cast('uint16_t *', entry + sixtyA)[0] = minute
      ffi.cast('uint16_t *', entry + sixtyB)[0] = second
    end
    entry = entry + stride
  end
  local first = request + firstAt
  ffi.cast('uint32_t *', first + fourA)[0] = four[math.floor(sent / 10000) % 10000]
  ffi.cast('uint32_t *', first + fourB)[0] = four[sent % 10000]
end

function request()
  local index = sent % plan.count + 1
  local pointer = pointers[index]
  if keyCount > 0 then
    ffi.copy(pointer + keyAt, keys + (sent % keyCount) * keyLength, keyLength)
  end
  if entries > 0 then change(pointer) end
  sent = sent + 1
  return requests[index]
end

if plan.rate ~= '' then
  local now = ffi.new('bench_time')
  local function seconds()
    ffi.C.clock_gettime(1, now)
    return tonumber(now.seconds) + tonumber(now.nanoseconds) / 1e9
  end
  local rate, readAt, slot = 1, 0, 0
  -- Each request takes the next slot of the rate that the file holds. A sender that is more than a
  -- tenth of a second behind does not catch up.
  function delay()
    local at = seconds()
    if at - readAt > 0.05 then
      readAt = at
      local file = io.open(plan.rate, 'rb')
      if file then
        rate = math.max(1, file:read('*n') or rate)
        file:close()
      end
    end
    slot = math.max(slot + 1 / rate, at - 0.1)
    return math.min(1000, math.max(0, math.floor((slot - at) * 1000)))
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'BENCH {"requests":%d,"seconds":%.6f,"bytes":%.0f,"status":%d,"lost":%d,"p50":%d,"p99":%d,"p999":%d,"max":%d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max))
end
