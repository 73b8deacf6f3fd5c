// Made by make_vectors.py with Python's standard library; not by this crate.

pub const FIRST: Vector = Vector {
    leaf_data: r#"{"actor":{"auth_method":"bearer","id":"checkout","type":"api_key"},"amount_minor":"1234","amounts":{"authorized":"0","capture_pending":"0","captured":"0","charged_back":"0","excess":"0","refund_pending":"0","refunded":"0","void_pending":"0","voided":"0"},"attempt":1,"capture_method":"MANUAL","currency":"KWD","currency_exponent":3,"entity_seq":"1","entry_id":"01890a5d-ac97-7000-8000-000000000001","event_type":"payment.accepted","idempotency_key_digest":"3333333333333333333333333333333333333333333333333333333333333333","leaf_salt":"AQEBAQEBAQEBAQEBAQEBAQ","max_attempts":8,"merchant_reference":"Bestellung \"42\" \\ Größe Ä 😀","occurred_at":"2026-02-28T23:59:51.000000Z","payment_id":"01890a5d-ac96-774b-bcce-b302099a8057","payment_row_digest":"1111111111111111111111111111111111111111111111111111111111111111","personal_data":{"customer.email":"GxQEcO3drRu-Gdp3U8gAfuXKmwaZpedbzb0qd-8TTEM","customer.name":"MxcEL1C56puL6167MxzaXoVIZd6idzvOXduAn3l_O3k"},"provider_account":"sandbox-eu","provider_request_digest":"2222222222222222222222222222222222222222222222222222222222222222","recorded_at":"2026-02-28T23:59:51.000120Z","remote_span_id":"b7ad6b7169203331","remote_trace_id":"0af7651916cd43dd8448eb211c80319c","request_id":"req-7","result":"success","schema_version":1,"source":{"instance":"replica-1","peer":"[2001:db8::1]:50123","rpc_method":"quittance.v1.PaymentService/CreatePayment","service":"quittance","version":"0.1.0"},"span_id":"00f067aa0ba902b7","state_to":"PENDING","stream_id":"01890a5d-ac96-774b-bcce-b302099a8057","tenant_id":"acme","trace_flags":1,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","transaction_id":"01890a5d-ac96-7b7c-8f89-37c3d0a66aa1"}"#,
    leaf_hash: "1bcb847231a764b535b31663577a2104a0592caf3f43cdbc678c029150e4d919",
    mac: "c7717d134e8f15418ed914d32bf1a1666de19e24fd00d67f2f8749964ea0506a",
};

pub const SECOND: Vector = Vector {
    leaf_data: r#"{"actor":{"id":"recovery","type":"system"},"attempt":1,"cause":{"code":"PROVIDER_TIMEOUT","retryable":true},"entity_seq":"2","entry_id":"01890a5d-ac97-7000-8000-000000000002","event_type":"payment.attempt_unknown","leaf_salt":"AgICAgICAgICAgICAgICAg","max_attempts":8,"next_retry_at":"2026-03-01T00:00:07.250001Z","occurred_at":"2026-02-28T23:59:52.000000Z","payment_id":"01890a5d-ac96-774b-bcce-b302099a8057","prev_leaf_hash":"1bcb847231a764b535b31663577a2104a0592caf3f43cdbc678c029150e4d919","recorded_at":"2026-02-28T23:59:52.000120Z","result":"unknown","schema_version":1,"source":{"instance":"replica-1","service":"quittance","version":"0.1.0"},"span_id":"00f067aa0ba902b7","state_from":"PENDING","state_to":"PENDING","stream_id":"01890a5d-ac96-774b-bcce-b302099a8057","tenant_id":"acme","trace_flags":0,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","transaction_id":"01890a5d-ac96-7b7c-8f89-37c3d0a66aa1"}"#,
    leaf_hash: "4d114c841bc494d447880d97876095fbfcfe516581d34ff85cd0ec32145bde47",
    mac: "90193208aabad310dc6e9efff4f7c110043c7444eef935466b8a86e4101202bb",
};

pub const THIRD: Vector = Vector {
    leaf_data: r#"{"actor":{"auth_method":"bearer","id":"checkout","type":"api_key"},"cause":{"code":"DECLINED","retryable":false},"decline_code":"INSUFFICIENT_FUNDS","details":{"a-b":"","a.b":"€","a_b":"�","reason":"line one��line two"},"entity_seq":"3","entry_id":"01890a5d-ac97-7000-8000-000000000003","event_type":"payment.declined","grpc_status":"OK","leaf_salt":"AwMDAwMDAwMDAwMDAwMDAw","occurred_at":"2026-02-28T23:59:53.000000Z","payment_id":"01890a5d-ac96-774b-bcce-b302099a8057","prev_leaf_hash":"4d114c841bc494d447880d97876095fbfcfe516581d34ff85cd0ec32145bde47","provider_reference":"sbx_/1","provider_response_digest":"4444444444444444444444444444444444444444444444444444444444444444","recorded_at":"2026-02-28T23:59:53.000120Z","result":"failure","schema_version":1,"source":{"instance":"replica-1","service":"quittance","version":"0.1.0"},"span_id":"00f067aa0ba902b7","state_from":"PENDING","state_to":"DECLINED","stream_id":"01890a5d-ac96-774b-bcce-b302099a8057","tenant_id":"acme","trace_flags":1,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","transaction_id":"01890a5d-ac96-7b7c-8f89-37c3d0a66aa1"}"#,
    leaf_hash: "250dae394929b3048a0540bf0dd61e6f9cbf262e295697796231e056ecf018e1",
    mac: "29fbeb281fdd703a17322a5b8c822d07d80fd94d531729ba36865542d818e9bb",
};

pub const LARGEST: Vector = Vector {
    leaf_data: r#"{"actor":{"auth_method":"bearer","id":"checkout","type":"api_key"},"amount_minor":"-9223372036854775808","amounts":{"authorized":"9223372036854775807","capture_pending":"-1","captured":"-9223372036854775808","charged_back":"100","excess":"99","refund_pending":"9007199254740993","refunded":"10","void_pending":"1","voided":"0"},"attempt":4294967295,"currency":"JPY","currency_exponent":0,"entity_seq":"1","entry_id":"01890a5d-ac97-7000-8000-000000000001","event_type":"payment.fact_recorded","leaf_salt":"AQEBAQEBAQEBAQEBAQEBAQ","max_attempts":0,"occurred_at":"0001-01-01T00:00:00.000000Z","payment_id":"01890a5d-ac96-774b-bcce-b302099a8057","recorded_at":"9999-12-31T23:59:59.999999Z","result":"success","schema_version":1,"source":{"instance":"replica-1","service":"quittance","version":"0.1.0"},"span_id":"00f067aa0ba902b7","stream_id":"01890a5d-ac96-774b-bcce-b302099a8057","tenant_id":"acme","trace_flags":255,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#,
    leaf_hash: "ef551e8e36afd1d019f127b8b6d29655c417d3288003b9ec6f6cedf036605a1a",
    mac: "744a372d09b66a2daf338b4bc878ca0550c5b0729f600341f3aa159191e6c525",
};

pub const NAMED: Vector = Vector {
    leaf_data: r#"{"actor":{"auth_method":"bearer","id":"checkout","type":"api_key"},"details":{"filter.trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","page_size":"50"},"entity_seq":"1","entry_id":"01890a5d-ac97-7000-8000-000000000001","event_type":"audit.read","leaf_salt":"AQEBAQEBAQEBAQEBAQEBAQ","occurred_at":"2026-02-28T23:59:51.000000Z","recorded_at":"2026-02-28T23:59:51.000120Z","result":"success","schema_version":1,"source":{"instance":"replica-1","service":"quittance","version":"0.1.0"},"span_id":"0000000000000000","stream_id":"audit-reads/01890a5d-ac98-7000-8000-000000000001","tenant_id":"acme","trace_flags":1,"trace_id":"00000000000000000000000000000000"}"#,
    leaf_hash: "83e6757159d287755a57755a2b463b56778d77f34eb4072f4e610c554c6bc6d9",
    mac: "d08e32d35e63164c4ba8701740e59730325be29bc703d286af7a7c7b646459ef",
};

pub const CUSTOMER_NAME: Disclosed = Disclosed {
    encoded: "WyJBQUVDQXdRRkJnY0lDUW9MREEwT0R3IiwiY3VzdG9tZXIubmFtZSIsIlpvw6sgXCJaXCIgTydOZWlsXG5cdTAwMDEiXQ",
    digest: "MxcEL1C56puL6167MxzaXoVIZd6idzvOXduAn3l_O3k",
};

pub const CUSTOMER_EMAIL: Disclosed = Disclosed {
    encoded: "WyJFQkVTRXhRVkZoY1lHUm9iSEIwZUh3IiwiY3VzdG9tZXIuZW1haWwiLCJ6b2VAZXhhbXBsZS5jb20iXQ",
    digest: "GxQEcO3drRu-Gdp3U8gAfuXKmwaZpedbzb0qd-8TTEM",
};

