"""gRPC: the only package, beside app, that knows it.

A call goes through `interceptors` (limit, token, tenant, deadline, errors), reaches a servicer,
is turned into the domain's words by `convert`, and answered by the facade.
"""
