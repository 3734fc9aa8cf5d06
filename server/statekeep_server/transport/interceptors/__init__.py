"""What happens to every call before a servicer sees it, and to every error after.

One interceptor (`adapter`), because each costs 5 to 15 % of the throughput; the steps, each a
small module, are in the order in which they act: `errors`, `limiter`, `auth`, `call`.
"""
