mod compiled;
mod meaning;
mod reference;
mod scene;
