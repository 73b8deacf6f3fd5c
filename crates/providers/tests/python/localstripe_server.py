"""Runs PyPI's localstripe on a free port of loopback until its standard input ends, and prints the port first.

It is taught the parameters and fields of Stripe's API that it lacks; what it does with a payment is its own.
"""

import asyncio
import sys

from aiohttp import web
from localstripe import resources, server

# Nothing of a run is kept.
resources.store.dump_to_disk = lambda: None

Intent = resources.PaymentIntent
create, capture = Intent._api_create.__func__, Intent._api_capture.__func__
cancel, initialize = Intent._api_cancel.__func__, Intent.__init__
# Parameters that change nothing here.
IGNORED = ("description", "return_url", "mandate", "automatic_payment_methods")


def begin(self, **data):
    initialize(self, **data)
    self._captured = None


def with_all_parameters(cls, **data):
    return create(cls, **{name: value for name, value in data.items() if name not in IGNORED})


def with_metadata(cls, id, metadata=None, amount_to_capture=None, **kwargs):
    intent = cls._api_retrieve(id)
    before = intent.metadata
    # The event about the capture holds them already.
    intent.metadata = {**before, **(metadata or {})}
    intent._captured = resources.try_convert_to_int(amount_to_capture)
    try:
        return capture(cls, id, amount_to_capture=amount_to_capture, **kwargs)
    except resources.UserError:
        intent.metadata, intent._captured = before, None
        raise


def amount_received(self):
    if self.status != "succeeded":
        return 0
    return self.amount if self._captured is None else self._captured


Intent.__init__ = begin
Intent._api_create = classmethod(with_all_parameters)
Intent._api_capture = classmethod(with_metadata)
Intent.amount_received = property(amount_received)
Intent.amount_capturable = property(lambda self: self.amount if self.status == "requires_capture" else 0)
Intent.cancellation_reason = property(lambda self: "requested_by_customer" if self._canceled else None)

# The routes hold the functions as they were.
app = web.Application(middlewares=[server.error_middleware, server.auth_middleware])
app.router.add_post("/v1/payment_intents/{id}/capture", server.api_extra(Intent._api_capture, ""))
for route in server.app.router.routes():
    if not route.resource.canonical.endswith("/capture"):
        app.router.add_route(route.method, route.resource.canonical, route.handler)


async def main():
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


asyncio.run(main())
