//! Every place of a request where a value can be put, found by reflection, so that none is forgotten.

use std::collections::HashMap;

use prost::Message;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage as _, Value,
};

/// The contract.
pub fn contract() -> DescriptorPool {
    DescriptorPool::decode(quittance_proto::FILE_DESCRIPTOR_SET).unwrap()
}

/// A typed request, made changeable by field.
pub fn dynamic<M: Message>(name: &str, request: &M) -> DynamicMessage {
    let descriptor = contract()
        .get_message_by_name(&format!("quittance.v1.{name}"))
        .unwrap();
    DynamicMessage::decode(descriptor, request.encode_to_vec().as_slice()).unwrap()
}

/// Where in a field a value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    ListItem,
    MapKey,
    MapValue,
}

/// One place of a request.
#[derive(Clone, Debug)]
pub struct Place {
    path: Vec<FieldDescriptor>,
    pub part: Part,
    /// As callers write it: `amount.minor_units`.
    pub name: String,
    /// The kind of value that fits.
    pub kind: Kind,
}

/// Every place of a message, nested ones included.
pub fn places(message: &MessageDescriptor) -> Vec<Place> {
    let mut places = Vec::new();
    collect(message, &[], &mut places);
    places
}

fn collect(message: &MessageDescriptor, path: &[FieldDescriptor], places: &mut Vec<Place>) {
    for field in message.fields() {
        let mut path = path.to_vec();
        path.push(field.clone());
        let names: Vec<_> = path.iter().map(|field| field.name().to_owned()).collect();
        let name = names.join(".");
        let mut add = |part, kind| {
            places.push(Place {
                path: path.clone(),
                part,
                name: name.clone(),
                kind,
            });
        };
        match (field.kind(), field.cardinality()) {
            (Kind::Message(entry), _) if field.is_map() => {
                add(Part::MapKey, entry.map_entry_key_field().kind());
                add(Part::MapValue, entry.map_entry_value_field().kind());
            }
            (kind, Cardinality::Repeated) => add(Part::ListItem, kind),
            (Kind::Message(inner), _) => collect(&inner, &path, places),
            (kind, _) => add(Part::Whole, kind),
        }
    }
}

impl Place {
    /// Puts a value there; what it lies in is made where it is missing.
    pub fn put(&self, message: &mut DynamicMessage, value: Value) {
        let (last, outer) = self.path.split_last().unwrap();
        let mut inner = message;
        for field in outer {
            inner = inner.get_field_mut(field).as_message_mut().unwrap();
        }
        let value = match self.part {
            Part::Whole => value,
            Part::ListItem => Value::List(vec![value]),
            Part::MapKey => Value::Map(HashMap::from([(
                MapKey::String(value.as_str().unwrap().to_owned()),
                Value::String("value".to_owned()),
            )])),
            Part::MapValue => {
                Value::Map(HashMap::from([(MapKey::String("key".to_owned()), value)]))
            }
        };
        inner.set_field(last, value);
    }

    /// Whether a violation's field is about this place.
    pub fn is_named_by(&self, field: &str) -> bool {
        field.starts_with(&self.name) || self.name.starts_with(field)
    }
}

/// The name of a request's message, without package.
pub fn message_name(message: &DynamicMessage) -> String {
    message.descriptor().name().to_owned()
}
