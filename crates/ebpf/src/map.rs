//! Maps with types: what the engine writes for the programs to read, and the other way round.
//!
//! Deliberately absent: which maps there are ([`crate::maps`]) and what is in them.

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::sys::{self, MapInfo};
use crate::view::{self, Live, Mapped, Plain};

/// A map, and its sizes as the kernel has them. Clones are the same map.
#[derive(Clone, Debug)]
pub struct Map {
    fd: Arc<OwnedFd>,
    /// Its sizes.
    pub info: MapInfo,
}

impl Map {
    /// The map behind a descriptor.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let info = sys::map_info(fd.as_fd())?;
        Ok(Self { fd: Arc::new(fd), info })
    }

    /// Its elements as memory; an array that was made for that.
    ///
    /// # Errors
    /// The kernel's.
    pub fn mapped<T: Live>(&self) -> io::Result<Mapped<T>> {
        Mapped::new(self.as_fd(), &self.info)
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A map from one type to another: a hash map, a trie, or an array.
#[derive(Clone, Debug)]
pub struct Table<K, V> {
    map: Map,
    types: PhantomData<(K, V)>,
}

impl<K: Plain, V: Plain> Table<K, V> {
    /// The map with types.
    ///
    /// # Errors
    /// The types have not the sizes of the map.
    pub fn new(map: Map) -> io::Result<Self> {
        if (map.info.key as usize, map.info.value as usize) != (size_of::<K>(), size_of::<V>()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not the sizes of the map"));
        }
        Ok(Self { map, types: PhantomData })
    }

    /// How many elements it may have.
    pub fn capacity(&self) -> u32 {
        self.map.info.entries
    }

    /// The element of a key.
    ///
    /// # Errors
    /// The kernel's.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = [V::default()];
        let key = view::bytes(std::slice::from_ref(key));
        let found = sys::lookup(self.map.as_fd(), &self.map.info, key, view::bytes_mut(&mut value), 1)?;
        Ok(found.then_some(value[0]))
    }

    /// Sets an element. Whoever looks it up meanwhile finds the old or the new one, of an array a mixture.
    ///
    /// # Errors
    /// The kernel's: the map is full.
    pub fn set(&self, key: &K, value: &V) -> io::Result<()> {
        let (key, value) = (view::bytes(std::slice::from_ref(key)), view::bytes(std::slice::from_ref(value)));
        sys::update(self.map.as_fd(), &self.map.info, key, value, 1)
    }

    /// Removes an element; of an array there is no such thing. Whether there was one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self, key: &K) -> io::Result<bool> {
        sys::delete(self.map.as_fd(), &self.map.info, view::bytes(std::slice::from_ref(key)))
    }

    /// All elements. Only for maps that nobody else takes elements out of.
    ///
    /// # Errors
    /// The kernel's.
    pub fn all(&self) -> io::Result<Vec<(K, V)>> {
        let (mut all, mut key) = (Vec::new(), None::<K>);
        loop {
            let mut next = [K::default()];
            let before = key.as_ref().map(|key| view::bytes(std::slice::from_ref(key)));
            if !sys::next_key(self.map.as_fd(), &self.map.info, before, view::bytes_mut(&mut next))? {
                return Ok(all);
            }
            key = Some(next[0]);
            if let Some(value) = self.get(&next[0])? {
                all.push((next[0], value));
            }
        }
    }
}

impl<V: Plain> Table<u32, V> {
    /// Sets the elements of an array from `first` on by one call.
    ///
    /// # Errors
    /// The kernel's: the array is shorter.
    pub fn set_all(&self, first: u32, values: &[V]) -> io::Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let keys: Vec<u32> = (first..).take(values.len()).collect();
        sys::update_batch(self.map.as_fd(), &self.map.info, &keys, view::bytes(values))
    }

    /// The elements of an array from the first on, at most as many.
    ///
    /// # Errors
    /// The kernel's.
    pub fn first(&self, count: u32) -> io::Result<Vec<V>> {
        let count = count.min(self.capacity()) as usize;
        let (mut keys, mut values) = (vec![0; count], vec![V::default(); count]);
        if count == 0 {
            return Ok(values);
        }
        let read =
            sys::lookup_batch(self.map.as_fd(), &self.map.info, &mut keys, view::bytes_mut(&mut values), 1)?;
        values.truncate(read);
        Ok(values)
    }
}

/// An array of counters, one for each processor, so that counting needs no shared cache line.
#[derive(Clone, Debug)]
pub struct Counters<V> {
    map: Map,
    processors: usize,
    types: PhantomData<V>,
}

impl<V: Plain> Counters<V> {
    /// The map with its type.
    ///
    /// # Errors
    /// The type has not the size of the map, or the processors cannot be counted.
    pub fn new(map: Map) -> io::Result<Self> {
        // The kernel rounds up each processor's value, of one processor too; nothing here does.
        const { assert!(size_of::<V>().is_multiple_of(8)) };
        if map.info.value as usize != size_of::<V>() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not the sizes of the map"));
        }
        Ok(Self { map, processors: possible_processors()?, types: PhantomData })
    }

    /// How many elements it has.
    pub fn capacity(&self) -> u32 {
        self.map.info.entries
    }

    /// The first elements, at most as many, each summed up over the processors.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&self, count: u32, sum: impl Fn(&[V]) -> V) -> io::Result<Vec<V>> {
        let count = count.min(self.capacity()) as usize;
        if count == 0 {
            return Ok(Vec::new());
        }
        let values = view::read_per_processor(self.map.as_fd(), &self.map.info, count, self.processors)?;
        Ok(values.chunks(self.processors).map(sum).collect())
    }

    /// Adds to an element.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add(&self, index: u32, value: V, sum: impl Fn(&[V]) -> V) -> io::Result<()> {
        let mut values = vec![V::default(); self.processors];
        let key = index.to_ne_bytes();
        sys::lookup(self.map.as_fd(), &self.map.info, &key, view::bytes_mut(&mut values), self.processors)?;
        values[0] = sum(&[values[0], value]);
        sys::update(self.map.as_fd(), &self.map.info, &key, view::bytes(&values), self.processors)
    }

    /// Sets an element to `value` in all.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set(&self, index: u32, value: V) -> io::Result<()> {
        let mut values = vec![V::default(); self.processors];
        values[0] = value;
        let key = index.to_ne_bytes();
        sys::update(self.map.as_fd(), &self.map.info, &key, view::bytes(&values), self.processors)
    }
}

/// How many processors the kernel makes room for, which may be more than there are.
fn possible_processors() -> io::Result<usize> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text))
}
