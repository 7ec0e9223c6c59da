from tfx_ranking import _moved

__getattr__ = _moved.names_of(__name__)
