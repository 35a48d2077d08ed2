#!lua flags=allow-oom
-- A ticket leaves the queue. ARGV 1 ticket
-- include provider_window
forget(ARGV[1])
