"""What happens to every call before a servicer sees it, and to every error after.

Handlers are wrapped once (`adapter`): an interceptor would cost each call; the steps, each a
small module, are in the order in which they act: `errors`, `limiter`, `auth`, `call`.
"""
