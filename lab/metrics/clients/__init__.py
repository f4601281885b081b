"""The programs that ask an application, or work for it: wrk, wrk at a rate of its own, a command of the scenario."""
