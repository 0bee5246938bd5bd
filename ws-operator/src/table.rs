//! What a watch has told so far: objects by namespace and name.

use std::collections::{BTreeMap, BTreeSet};

use kube::runtime::watcher::Event;

/// Where an object stands; cluster-wide ones have an empty namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Place {
    /// Where that object stands.
    pub fn of<K: kube::Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

/// Objects as of now. A list that is not yet whole is not shown: the old objects count until it is.
#[derive(Debug)]
pub struct Table<T> {
    shown: BTreeMap<Place, T>,
    listed: BTreeMap<Place, T>,
    whole: bool,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { shown: BTreeMap::new(), listed: BTreeMap::new(), whole: false }
    }
}

impl<T: PartialEq> Table<T> {
    /// Takes an event, what is kept of its object by `keep`; says where something is now different.
    pub fn apply<K: kube::Resource>(
        &mut self,
        event: Event<K>,
        keep: impl FnOnce(K) -> T,
    ) -> BTreeSet<Place> {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => drop(self.listed.insert(Place::of(&object), keep(object))),
            Event::InitDone => return self.replace(),
            Event::Apply(object) => {
                let (place, object) = (Place::of(&object), keep(object));
                if self.shown.get(&place) != Some(&object) {
                    self.shown.insert(place.clone(), object);
                    return BTreeSet::from([place]);
                }
            }
            Event::Delete(object) => {
                let place = Place::of(&object);
                if self.shown.remove(&place).is_some() {
                    return BTreeSet::from([place]);
                }
            }
        }
        BTreeSet::new()
    }

    fn replace(&mut self) -> BTreeSet<Place> {
        let old = std::mem::replace(&mut self.shown, std::mem::take(&mut self.listed));
        self.whole = true;
        let places = old.keys().chain(self.shown.keys());
        places.filter(|place| old.get(*place) != self.shown.get(*place)).cloned().collect()
    }
}

impl<T> Table<T> {
    /// Whether the first list is whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The object at that place.
    #[must_use]
    pub fn get(&self, place: &Place) -> Option<&T> {
        self.shown.get(place)
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = (&Place, &T)> {
        self.shown.iter()
    }

    /// The objects of one namespace, by name.
    pub fn within<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a Place, &'a T)> {
        let from = Place { namespace: namespace.into(), name: String::new() };
        self.shown.range(from..).take_while(move |(place, _)| place.namespace == namespace)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn object(name: &str, value: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("ns".into()),
                name: Some(name.into()),
                ..ObjectMeta::default()
            },
            data: Some([("k".into(), value.into())].into()),
            ..ConfigMap::default()
        }
    }

    fn feed(table: &mut Table<String>, event: Event<ConfigMap>) -> Vec<String> {
        let changed = table.apply(event, |map| map.data.unwrap_or_default()["k"].clone());
        changed.into_iter().map(|place| place.name).collect()
    }

    fn shown(table: &Table<String>) -> Vec<(&str, &str)> {
        table.within("ns").map(|(place, value)| (&*place.name, &**value)).collect()
    }

    #[test]
    fn half_a_list_is_not_shown() {
        let mut table = Table::default();
        assert!(feed(&mut table, Event::Init).is_empty());
        assert!(feed(&mut table, Event::InitApply(object("a", "1"))).is_empty());
        assert!(!table.is_whole() && shown(&table).is_empty());
        assert_eq!(feed(&mut table, Event::InitDone), ["a"]);
        assert!(table.is_whole());
        feed(&mut table, Event::Apply(object("b", "1")));
        // A second list, broken off and begun again, of which only the last counts.
        feed(&mut table, Event::Init);
        feed(&mut table, Event::InitApply(object("x", "1")));
        feed(&mut table, Event::Init);
        assert_eq!(shown(&table), [("a", "1"), ("b", "1")]);
        feed(&mut table, Event::InitApply(object("b", "1")));
        assert_eq!(feed(&mut table, Event::InitDone), ["a"], "what stayed the same is no change");
        assert_eq!(shown(&table), [("b", "1")]);
    }

    #[test]
    fn only_differences_are_changes() {
        let mut table = Table::default();
        assert_eq!(feed(&mut table, Event::Apply(object("a", "1"))), ["a"]);
        assert!(feed(&mut table, Event::Apply(object("a", "1"))).is_empty());
        assert_eq!(feed(&mut table, Event::Apply(object("a", "2"))), ["a"]);
        assert_eq!(feed(&mut table, Event::Delete(object("a", "2"))), ["a"]);
        assert!(feed(&mut table, Event::Delete(object("a", "2"))).is_empty());
    }
}
