"""Takes a payment through its life with nothing but grpcio and the server's reflection service.

QUITTANCE_TARGET   host:port of the gRPC server
QUITTANCE_API_KEY  an API key that may write, refund, read, and read the audit log
QUITTANCE_CA       file with the certificate authority to trust (PEM)
"""

import os
import uuid

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

PACKAGE = "quittance.v1"


class Stub:
    """Methods of one service, made from its descriptor."""

    def __init__(self, channel, service):
        for method in service.methods:
            request = GetMessageClass(method.input_type)
            answer = GetMessageClass(method.output_type)
            kind = channel.unary_stream if method.server_streaming else channel.unary_unary
            call = kind(
                f"/{service.full_name}/{method.name}",
                request_serializer=request.SerializeToString,
                response_deserializer=answer.FromString,
            )
            setattr(self, method.name, self._bound(call, request))

    @staticmethod
    def _bound(call, request):
        return lambda **fields: call(request(**fields), timeout=20)


def connect():
    with open(os.environ["QUITTANCE_CA"], "rb") as file:
        tls = grpc.ssl_channel_credentials(root_certificates=file.read())
    key = grpc.access_token_call_credentials(os.environ["QUITTANCE_API_KEY"])
    credentials = grpc.composite_channel_credentials(tls, key)
    return grpc.secure_channel(os.environ["QUITTANCE_TARGET"], credentials)


def state_name(payment):
    field = payment.DESCRIPTOR.fields_by_name["state"]
    return field.enum_type.values_by_number[payment.state].name


def main():
    channel = connect()
    database = ProtoReflectionDescriptorDatabase(channel)
    assert f"{PACKAGE}.PaymentService" in database.get_services(), database.get_services()
    pool = DescriptorPool(database)
    payments = Stub(channel, pool.FindServiceByName(f"{PACKAGE}.PaymentService"))
    audit = Stub(channel, pool.FindServiceByName(f"{PACKAGE}.AuditService"))

    def euros(minor_units):
        return {"minor_units": minor_units, "currency_code": "EUR"}

    order = {
        "idempotency_key": str(uuid.uuid4()),
        "amount": euros(5000),
        "payment_method": {"type": "PAYMENT_METHOD_TYPE_CARD", "provider_token": "tok_approve"},
        "capture_method": "CAPTURE_METHOD_MANUAL",
        "merchant_reference": "python-order",
    }
    payment = payments.CreatePayment(**order).payment
    assert state_name(payment) == "PAYMENT_STATE_AUTHORIZED", payment
    assert payments.CreatePayment(**order).payment.payment_id == payment.payment_id

    def command(minor_units):
        key = str(uuid.uuid4())
        return {
            "payment_id": payment.payment_id, "idempotency_key": key, "amount": euros(minor_units)
        }

    part = payments.CapturePayment(**command(2000)).payment
    assert state_name(part) == "PAYMENT_STATE_PARTIALLY_CAPTURED", part
    whole = payments.CapturePayment(**command(3000)).payment
    assert state_name(whole) == "PAYMENT_STATE_CAPTURED", whole
    refunded = payments.RefundPayment(**command(1500)).payment
    assert state_name(refunded) == "PAYMENT_STATE_PARTIALLY_REFUNDED", refunded
    assert refunded.amount_refundable.minor_units == 3500, refunded

    try:
        payments.RefundPayment(**command(3501))
        raise AssertionError("a refund above what is left was accepted")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error

    found = payments.GetPayment(payment_id=payment.payment_id).payment
    assert found == refunded, found
    listed = payments.ListPayments(merchant_reference="python-order").payments
    assert [entry.payment_id for entry in listed] == [payment.payment_id], listed
    events = list(payments.WatchPayments())
    assert len(events) == refunded.version, events
    listed = audit.ListEntries(payment_id=payment.payment_id, page_size=100).entries
    # Its changes, without who read about them.
    entries = [entry for entry in listed if entry.stream_id == payment.payment_id]
    assert [entry.entity_seq for entry in entries] == list(range(1, refunded.version + 1)), entries
    assert all(len(entry.trace_id) == 32 for entry in entries), entries
    for entry in entries:
        print(entry.entity_seq, entry.event_type, entry.state_to, entry.trace_id)
    print("lifecycle complete")


if __name__ == "__main__":
    main()
