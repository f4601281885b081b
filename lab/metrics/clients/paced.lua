-- Paces wrk: each of its threads, which has one connection, is due to ask at fixed times, whatever became of the
-- request before. A latency is counted from when its request was due. Arguments: requests a second of all threads,
-- their number, seconds. Ends with one line of JSON: counts, microseconds.

local ffi = require("ffi")
ffi.cdef[[
  typedef struct { long seconds; long nanoseconds; } lab_timespec;
  int clock_gettime(int clock, lab_timespec *moment);
]]
local MONOTONIC, MICRO = 1, 1e6
local NEVER = 3600 * 1000 -- milliseconds
local moment = ffi.new("lab_timespec")
local threads = {}

local function now()
  ffi.C.clock_gettime(MONOTONIC, moment)
  return tonumber(moment.seconds) * MICRO + tonumber(moment.nanoseconds) / 1e3
end

function setup(thread)
  thread:set("place", #threads)
  table.insert(threads, thread)
end

function init(arguments)
  local rate, count = tonumber(arguments[1]), tonumber(arguments[2])
  gap = count / rate * MICRO -- between two requests of this thread
  first = place / rate * MICRO -- so that those of all threads are evenly spread
  length = tonumber(arguments[3]) * MICRO
  due, last, asked, sent = nil, nil, nil, nil
  latencies, late = {}, {}
end

function delay() -- milliseconds until the next request may leave, asked when the connection is free and open
  asked = now()
  if due == nil then
    due, last = asked + first, asked + length
  end
  if due >= last then
    return NEVER
  end
  return math.max(0, math.ceil((due - asked) / 1e3))
end

function request()
  sent = now()
  return wrk.format()
end

function response()
  local ended = now()
  if due < last then
    latencies[#latencies + 1] = ended - due
    late[#late + 1] = sent - math.max(due, asked) -- what nothing but the client made it wait
    due = due + gap
  end
end

local function percentile(sorted, share)
  return #sorted > 0 and sorted[math.max(1, math.ceil(share * #sorted))] or 0
end

function done(summary)
  local all, late_of_all, unanswered, ended = {}, {}, 0, now()
  for _, thread in ipairs(threads) do
    for _, value in ipairs(thread:get("latencies")) do all[#all + 1] = value end
    for _, value in ipairs(thread:get("late")) do late_of_all[#late_of_all + 1] = value end
    local due, last, gap = thread:get("due"), thread:get("last"), thread:get("gap")
    while due ~= nil and due < last do -- it took longer than this
      all[#all + 1], unanswered, due = ended - due, unanswered + 1, due + gap
    end
  end
  table.sort(all)
  table.sort(late_of_all)
  local errors = summary.errors
  io.write(string.format(
    '{"due": %d, "unanswered": %d, "late": %d, "connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d',
    #all, unanswered, percentile(late_of_all, 0.99),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
  for _, share in ipairs({50, 95, 99}) do
    io.write(string.format(', "p%d": %d', share, percentile(all, share / 100)))
  end
  io.write(string.format(', "max": %d}\n', percentile(all, 1)))
end
